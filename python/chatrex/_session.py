"""A loaded model, its pictures and its answers."""

from __future__ import annotations

import json
import math
import operator
import os
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, NamedTuple, Optional, Union, overload

from . import _chatrex, _images
from ._errors import Error, invalid
from ._images import Image
from ._types import Answer, Box, Card, LookTime, Partial, Proposal, Result, Span

BoxLike = Union[Proposal, Sequence[float]]
"""A box: a proposal, or four numbers ``x1, y1, x2, y2`` in pixels of the picture."""


class _Opened(NamedTuple):
    """An opened picture: its number, and the boxes of questions that name none."""

    picture: int
    boxes: tuple[Box, ...]


# Nothing can be done with the next picture either.
_ENDED = {"DeviceLost", "WorkerLost", "NotReady"}


class Session:
    """One loaded model and its current picture.

    The model works on a thread of its own and releases the GIL; any thread may call any method. Calls are carried out
    one after the other, in the order in which they came. A session has one current picture: a question belongs to the
    picture that the calling thread opened last. If another thread or a batch has opened another one since, the
    question is refused (:class:`Refused`, code ``InUse``), not asked about a picture that the caller did not mean. A
    thread that opened none asks about the current picture.

    A session belongs to the process that opened it. In a fork it is refused (code ``NotReady``); it cannot be
    pickled: open one per process.

    Args:
        model: Name of a built-in model, ``mini`` (80 kinds of things in photographs) or ``nano`` (drawn scenes), or
            the path of a folder that ``chatrex convert`` has written.
        device: ``auto`` (the GPU if there is one that is not a software adapter), ``wgpu`` (any GPU adapter) or
            ``cpu``.
        memory: Limit of the GPU memory in megabytes (10^6 bytes); parts of the model are loaded and evicted on
            demand. ``None`` is no limit.
        cache: Element type of the KV cache, ``f32`` or ``f16``. ``None`` is f16 for quantized weights on a GPU, else
            f32.
        cpu_activations: Activations that quantized weights are multiplied with on the CPU: ``f32`` (exact, and the
            default) or ``int8`` (faster, and not exact).

    Raises:
        NotFound: There is no such model.
        Damaged: A file of the model is damaged.
        DeviceError: There is no such device, it fails, or its memory does not suffice.
        InvalidInput: An option cannot be used.
    """

    def __init__(
        self,
        model: Union[str, os.PathLike[str]] = _chatrex.DEFAULT_MODEL,
        device: str = "auto",
        *,
        memory: Optional[int] = None,
        cache: Optional[str] = None,
        cpu_activations: Optional[str] = None,
    ) -> None:
        loading: dict[str, Any] = {
            "model": _images.path_of(model),
            "device": _choice("device", device, ("auto", "wgpu", "cpu")),
            "memory": None if memory is None else _count("memory", memory) * 1_000_000,
            "activations": "f32",
        }
        if cache is not None:
            loading["cache"] = _choice("cache", cache, ("f32", "f16"))
        if cpu_activations is not None:
            loading["activations"] = _choice("cpu_activations", cpu_activations, ("f32", "int8"))
        if loading["model"] is None:
            raise invalid("model", f"is a {type(model).__name__}", "Give a name or the path of a folder")
        self._engine = _chatrex.Engine(json.dumps(loading))
        # Also at the end of the interpreter: no thread computes while it is taken down.
        self._close = weakref.finalize(self, self._engine.close)
        self._card = Card._of(json.loads(self._engine.card()))
        # The picture that each thread opened last, and the one that any thread did.
        self._thread = threading.local()
        self._opened: Optional[_Opened] = None

    @property
    def card(self) -> Card:
        """The loaded model and its device."""
        return self._card

    def look(
        self,
        image: Image,
        granularity: str = "coarse",
        *,
        score: Optional[float] = None,
        nms: Optional[float] = None,
    ) -> Picture:
        """Makes a picture the current one and finds boxes in it.

        The EXIF orientation of a file is applied, for a path and for bytes. Arrays and PIL images are taken as they
        are (``PIL.ImageOps.exif_transpose`` turns one); transparent parts of a PIL image or a file are blended with
        white.

        Args:
            image: A path; the bytes of a JPEG, PNG or WebP file; an array ``[height, width, 3]`` of ``uint8`` in the
                order RGB (NumPy, or anything with ``__array_interface__`` and ``tobytes``); or a PIL image. At most
                64 megapixels.
            granularity: ``coarse`` for whole objects, ``fine`` for their parts too.
            score: Least score of a box, 0 to 1. ``None`` is the model's own choice.
            nms: IoU threshold of non-maximum suppression, 0 to 1; 0 keeps all boxes. ``None`` is that of the model.

        Returns:
            The picture: a sequence of its proposals, best first.

        Raises:
            NotFound: The file does not exist.
            InvalidInput: It is no picture, is damaged, or is too large. The current picture stays.
            DeviceError: The device fails. There is then no current picture.
        """
        pixels = _images.pixels(image)
        width, height = pixels.width, pixels.height
        choice = _choice("granularity", granularity, ("coarse", "fine"))
        least, overlap = _optional("score", score), _optional("nms", nms)
        picture = Picture(self, self._engine.look(pixels, choice), width, height, least, overlap)
        self._thread.opened = self._opened = _Opened(picture._found.picture, _boxes(picture[:_chatrex.MAX_BOXES]))
        return picture

    def propose(
        self,
        granularity: str = "fine",
        *,
        score: Optional[float] = None,
        nms: Optional[float] = None,
        picture: Optional[Picture] = None,
    ) -> list[Proposal]:
        """Boxes of the current picture for another prompt of the detector, best first. The picture is not encoded
        again.

        Args:
            granularity: As for :meth:`look`.
            score: As for :meth:`look`.
            nms: As for :meth:`look`.
            picture: The picture that is meant, instead of the one that the calling thread opened last.

        Raises:
            Refused: There is no current picture, or it is not the one that is meant.
            DeviceError: The device fails.
        """
        choice = _choice("granularity", granularity, ("coarse", "fine"))
        least, overlap = _optional("score", score), _optional("nms", nms)
        meant = self._meant(picture)
        found = self._engine.propose(choice, meant and meant.picture)
        return _proposals(found.choose(least, overlap))

    def ask(
        self,
        question: str,
        boxes: Optional[Iterable[BoxLike]] = None,
        *,
        max_tokens: Optional[int] = None,
        temperature: float = 0.0,
        top_k: int = 50,
        top_p: float = 1.0,
        seed: int = 0,
        repetition_penalty: Optional[float] = None,
        grammar: bool = True,
        system: Optional[str] = None,
        earlier: Sequence[tuple[str, str]] = (),
        picture: Optional[Picture] = None,
    ) -> AnswerStream:
        """Asks about the current picture. The answer may name boxes by their indices, and so may the question:
        ``What is <obj3>?``.

        The question is asked at once; the returned iterator yields the answer while it grows. Ctrl+C, a ``break``
        after which the iterator is dropped, and :meth:`AnswerStream.stop` end the answer before its next token.

        Args:
            question: The words. Text such as ``<|im_end|>`` is refused.
            boxes: The boxes that the answer may name, in pixels of the picture, at most ``chatrex.MAX_BOXES`` (100):
                four numbers ``x1, y1, x2, y2`` each, proposals, or an array ``[n, 4]``. ``None`` are the proposals of
                the picture, at most 100.
            max_tokens: The answer ends after this many tokens. ``None`` is the default of the model.
            temperature: Softmax temperature; 0 is greedy decoding.
            top_k: Sample from the k most likely tokens, 1 to 64.
            top_p: Nucleus sampling: of these, the most likely ones whose probabilities add up to this share.
            seed: Seed of the sampler; the same seed gives the same answer.
            repetition_penalty: Above 0 to 10; 1 is none. ``None`` is that of the model.
            grammar: Constrained decoding: lists of boxes name boxes of the question only.
            system: Words of the system prompt in place of the model's own.
            earlier: Earlier questions and answers (``answer.text``) about the same boxes, oldest first.
            picture: The picture that is meant, instead of the one that the calling thread opened last.

        Raises:
            InvalidInput: An argument cannot be used. Some faults of the question are raised by the iterator and by
                :meth:`AnswerStream.result`.
        """
        if not isinstance(question, str):
            raise invalid("question", f"is a {type(question).__name__}", "Give a str")
        meant = self._meant(picture)
        if boxes is not None:
            chosen = _boxes(boxes)
        else:
            chosen = meant.boxes if meant else ()
        asked = {
            "question": question,
            "boxes": chosen,
            "max_tokens": self._tokens(max_tokens),
            "sampling": _sampling(temperature, top_k, top_p, seed, repetition_penalty, grammar),
            "earlier": [{"question": words, "answer": answer} for words, answer in earlier],
            "system": system,
        }
        stream = self._engine.ask(json.dumps(asked), meant and meant.picture)
        return AnswerStream(self, stream, question, chosen)

    def answer(
        self,
        question: str,
        boxes: Optional[Iterable[BoxLike]] = None,
        **options: Any,
    ) -> Answer:
        """:meth:`ask` without the stream: waits for the complete answer.

        Args:
            question: As for :meth:`ask`.
            boxes: As for :meth:`ask`.
            options: As for :meth:`ask`.

        Raises:
            InvalidInput: The question cannot be asked.
            Refused: There is no current picture, or it is not the one that is meant.
            DeviceError: The device fails.
        """
        return self.ask(question, boxes, **options).result()

    def batch(
        self,
        images: Iterable[Image],
        question: Optional[str] = None,
        *,
        task: Optional[str] = None,
        granularity: str = "coarse",
        score: Optional[float] = None,
        nms: Optional[float] = None,
        max_tokens: Optional[int] = None,
        temperature: float = 0.0,
        top_k: int = 50,
        top_p: float = 1.0,
        seed: int = 0,
        repetition_penalty: Optional[float] = None,
        grammar: bool = True,
        system: Optional[str] = None,
        ahead: int = 2,
    ) -> Iterator[Result]:
        """Asks the same about many pictures, in their order. The next pictures are decoded meanwhile.

        A picture that cannot be used is a result with an ``error``, not an exception. Only what ends all work is
        raised: a lost device, a closed session, an exception of ``images`` itself. Other threads may use the session
        between two pictures.

        Args:
            images: Pictures as for :meth:`look`. The iterable is read ``ahead`` pictures in advance.
            question: A question as for :meth:`ask`, about the proposals of each picture; or
            task: as ``chatrex batch --task`` takes it: ``detect:dog,cat``, ``count:dogs``, ``caption``,
                ``grounded-caption``, ``region-caption`` or ``propose``.
            granularity: As for :meth:`look`.
            score: As for :meth:`look`.
            nms: As for :meth:`look`.
            max_tokens: As for :meth:`ask`; so are the following.
            temperature: As for :meth:`ask`.
            top_k: As for :meth:`ask`.
            top_p: As for :meth:`ask`.
            seed: As for :meth:`ask`.
            repetition_penalty: As for :meth:`ask`.
            grammar: As for :meth:`ask`.
            system: As for :meth:`ask`.
            ahead: How many pictures are decoded in advance, 1 or more; each takes ``height * width * 3`` bytes.

        Raises:
            InvalidInput: An argument cannot be used. It is raised at once, before a picture is read.
        """
        if (question is None) == (task is None):
            raise invalid("batch", "needs either a question or a task", "Give one of them")
        if task is not None:
            _chatrex.check_task(task)
        if isinstance(images, (str, bytes)):
            raise invalid("images", f"is a {type(images).__name__}", "Give a list of pictures")
        plan = {
            "question": question,
            "task": task,
            "granularity": _choice("granularity", granularity, ("coarse", "fine")),
            "score": _optional("score", score),
            "nms": _optional("nms", nms),
            "max_tokens": self._tokens(max_tokens),
            "sampling": _sampling(temperature, top_k, top_p, seed, repetition_penalty, grammar),
            "system": system,
        }
        return self._batch(iter(images), json.dumps(plan), max(1, _count("ahead", ahead)))

    def _batch(self, images: Iterator[Image], plan: str, ahead: int) -> Iterator[Result]:
        waiting: deque[tuple[Image, Future[_chatrex.Pixels]]] = deque()
        with ThreadPoolExecutor(1, "chatrex-decode") as decoder:
            try:
                for index in range(1 << 62):
                    while len(waiting) <= ahead:
                        try:
                            image = next(images)
                        except StopIteration:
                            break
                        waiting.append((image, decoder.submit(_images.pixels, image)))
                    if not waiting:
                        return
                    image, decoded = waiting.popleft()
                    yield self._examine(index, _images.path_of(image), decoded, plan)
            finally:
                for _, decoded in waiting:
                    decoded.cancel()

    def _examine(
        self, index: int, name: Optional[str], decoded: Future[_chatrex.Pixels], plan: str
    ) -> Result:
        width = height = 0
        try:
            pixels = decoded.result()
            width, height = pixels.width, pixels.height
            found = json.loads(self._engine.examine(pixels, plan))
        except Error as error:
            if error.code in _ENDED:
                raise
            return Result(index, name, width, height, error=error)
        proposals = tuple(Proposal._of(value) for value in found["boxes"])
        boxes = tuple(proposal.box for proposal in proposals)
        answers = tuple(
            Answer._of(turn["answer"], turn["question"], boxes) for turn in found["turns"]
        )
        return Result(index, name, width, height, proposals, answers)

    def close(self) -> None:
        """Stops what is being answered and frees the model. Later calls are refused (code ``NotReady``)."""
        self._close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise TypeError("a Session cannot be pickled; open one in each process")

    def __repr__(self) -> str:
        state = "" if self._close.alive else ", closed"
        return f"<chatrex.Session {self._card.name} on {self._card.device}{state}>"

    def _tokens(self, limit: Optional[int]) -> int:
        return self._card.default_max_tokens if limit is None else _count("max_tokens", limit)

    def _meant(self, picture: Optional[Picture]) -> Optional[_Opened]:
        if picture is None:
            opened: Optional[_Opened] = getattr(self._thread, "opened", self._opened)
            return opened
        if picture.session is not self:
            raise invalid("picture", "belongs to another session", kind="Picture")
        return _Opened(picture._found.picture, _boxes(picture[: _chatrex.MAX_BOXES]))


class Picture(Sequence[Proposal]):
    """A picture that a session has looked at: a sequence of its proposals, best first.

    Its methods ask about this picture. They are refused (:class:`Refused`, code ``InUse``) once the session has opened
    another one.

    Attributes:
        session: The session.
        width: Columns.
        height: Rows.
        proposals: The boxes that passed the thresholds of :meth:`Session.look`.
        milliseconds: Durations.
    """

    def __init__(
        self,
        session: Session,
        found: _chatrex.Proposals,
        width: int,
        height: int,
        score: Optional[float],
        nms: Optional[float],
    ) -> None:
        self.session = session
        self.width = width
        self.height = height
        self.proposals = tuple(_proposals(found.choose(score, nms)))
        self.milliseconds = LookTime(**json.loads(found.milliseconds()))
        self._found = found

    @overload
    def __getitem__(self, index: int) -> Proposal: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Proposal, ...]: ...
    def __getitem__(self, index: Union[int, slice]) -> Union[Proposal, tuple[Proposal, ...]]:
        return self.proposals[index]

    def __len__(self) -> int:
        return len(self.proposals)

    def __repr__(self) -> str:
        return f"<chatrex.Picture {self.width} x {self.height} pixels, {len(self)} proposals>"

    def all(self) -> list[Proposal]:
        """Every proposal of the detector, best first, whatever its score."""
        return _proposals(self._found.all())

    def choose(
        self, score: Optional[float] = None, nms: Optional[float] = None, limit: Optional[int] = None
    ) -> list[Proposal]:
        """The proposals for other thresholds, best first.

        Args:
            score: Least score, 0 to 1. ``None`` is the model's own choice.
            nms: IoU threshold of non-maximum suppression, 0 to 1; 0 keeps all. ``None`` is that of the model.
            limit: How many at most.
        """
        most = None if limit is None else _count("limit", limit)
        return _proposals(self._found.choose(_optional("score", score), _optional("nms", nms), most))

    def ask(
        self, question: str, boxes: Optional[Iterable[BoxLike]] = None, **options: Any
    ) -> AnswerStream:
        """:meth:`Session.ask` about this picture."""
        return self.session.ask(question, boxes, picture=self, **options)

    def answer(
        self, question: str, boxes: Optional[Iterable[BoxLike]] = None, **options: Any
    ) -> Answer:
        """:meth:`Session.answer` about this picture."""
        return self.ask(question, boxes, **options).result()

    def propose(
        self,
        granularity: str = "fine",
        *,
        score: Optional[float] = None,
        nms: Optional[float] = None,
    ) -> list[Proposal]:
        """:meth:`Session.propose` about this picture."""
        return self.session.propose(granularity, score=score, nms=nms, picture=self)


class AnswerStream(Iterator[Partial]):
    """An answer while it is generated. Iterating yields the whole answer so far whenever it has grown; a reader that is
    slower than the model skips states. The last state has the spans of :meth:`result`.

    An exception of the model is raised by iterating and by :meth:`result`.
    """

    def __init__(
        self, session: Session, stream: _chatrex.Stream, question: str, boxes: tuple[Box, ...]
    ) -> None:
        # A session that nothing refers to ends its answers.
        self._session = session
        self._stream = stream
        self._question = question
        self._boxes = boxes

    def __iter__(self) -> AnswerStream:
        return self

    def __next__(self) -> Partial:
        spans = self._stream.next()
        if spans is None:
            raise StopIteration
        return Partial(tuple(Span._of(span, self._boxes) for span in json.loads(spans)))

    def result(self) -> Answer:
        """Waits for the end and returns the complete answer, as often as it is called. After :meth:`stop` it is the
        answer up to there, with ``stop`` ``stopped``."""
        return Answer._of(json.loads(self._stream.result()), self._question, self._boxes)

    def stop(self) -> None:
        """Ends the answer before its next token. Encoding the picture and reading the question are not
        interrupted."""
        self._stream.stop()

    @property
    def done(self) -> bool:
        """Whether the answer is complete or has failed."""
        return self._stream.done


def _proposals(found: str) -> list[Proposal]:
    return [Proposal._of(value) for value in json.loads(found)]


def _boxes(boxes: Iterable[BoxLike]) -> tuple[Box, ...]:
    """Boxes of the caller. NumPy's numbers become Python's."""
    chosen = []
    for index, given in enumerate(boxes):
        place = f"boxes[{index}]"
        corners = given.box if isinstance(given, Proposal) else given
        try:
            x1, y1, x2, y2 = corners
        except (TypeError, ValueError):
            raise invalid(place, "is no box", "Give x1, y1, x2, y2 in pixels of the picture") from None
        chosen.append(Box(*(_number(place, corner) for corner in (x1, y1, x2, y2))))
    return tuple(chosen)


def _number(place: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise invalid(place, f"is {value!r}, expected a number") from None
    if not math.isfinite(number):
        raise invalid(place, f"is {number}, expected a finite number")
    return number


def _optional(place: str, value: Any) -> Optional[float]:
    return None if value is None else _number(place, value)


def _count(place: str, value: Any) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise invalid(place, f"is {value!r}, expected a whole number") from None
    if not 0 <= number < 1 << 32:
        raise invalid(place, f"is {number}, expected 0 to {(1 << 32) - 1}")
    return number


def _choice(place: str, value: Any, names: Sequence[str]) -> str:
    if isinstance(value, str) and value in names:
        return value
    raise invalid(place, f"is {value!r}", f"Use one of {', '.join(names)}")


def _sampling(
    temperature: float,
    top_k: int,
    top_p: float,
    seed: int,
    repetition_penalty: Optional[float],
    grammar: bool,
) -> dict[str, Any]:
    sampling: dict[str, Any] = {
        "temperature": _number("temperature", temperature),
        "top_k": _count("top_k", top_k),
        "top_p": _number("top_p", top_p),
        "seed": _count("seed", seed),
        "grammar": bool(grammar),
    }
    if repetition_penalty is not None:
        sampling["repetition_penalty"] = _number("repetition_penalty", repetition_penalty)
    return sampling
