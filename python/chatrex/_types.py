"""What a session returns: plain data that can be compared, copied and pickled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Optional

from ._errors import Error


class Box(NamedTuple):
    """A box by its corners, in pixels of the picture: x to the right and y down from its upper left corner. It may
    extend beyond the edges of the picture."""

    x1: float
    y1: float
    x2: float
    y2: float

    @property
    def width(self) -> float:
        """Pixels from left to right."""
        return self.x2 - self.x1

    @property
    def height(self) -> float:
        """Pixels from top to bottom."""
        return self.y2 - self.y1


@dataclass(frozen=True)
class Proposal:
    """A box that the detector proposes.

    Attributes:
        box: Pixels of the picture.
        score: 0 to 1.
        label: What the detector says it is; ``None`` for detectors that name nothing.
    """

    box: Box
    score: float
    label: Optional[str] = None

    @classmethod
    def _of(cls, value: dict[str, Any]) -> Proposal:
        return cls(Box(*value["box"]), value["score"], value.get("label"))


@dataclass(frozen=True)
class Span:
    """A part of an answer, and the boxes that it names.

    Attributes:
        text: Words without tags; ``[3]`` if the model named box 3 without a phrase.
        objects: Indices into the boxes of the question; empty for plain text.
        boxes: The boxes with these indices, in pixels of the picture. An index beyond the boxes of the question,
            which only an answer without ``grammar`` can have, has no entry here.
        open: True in a growing answer for a phrase whose boxes are still to come.
    """

    text: str
    objects: tuple[int, ...] = ()
    boxes: tuple[Box, ...] = ()
    open: bool = False

    @classmethod
    def _of(cls, value: dict[str, Any], boxes: tuple[Box, ...]) -> Span:
        objects = tuple(value.get("objects", ()))
        named = tuple(boxes[index] for index in objects if index < len(boxes))
        return cls(value["text"], objects, named, value.get("open", False))


def _plain(spans: tuple[Span, ...]) -> str:
    return "".join(span.text for span in spans)


@dataclass(frozen=True)
class Partial:
    """An answer that is still growing.

    Attributes:
        spans: The whole answer so far; never half a tag.
    """

    spans: tuple[Span, ...]

    @property
    def plain(self) -> str:
        """The words so far, without tags. Each state begins with the words of the one before."""
        return _plain(self.spans)


@dataclass(frozen=True)
class AskTime:
    """Durations of an answer in milliseconds.

    Attributes:
        look: Vision towers, box encoder and projectors; 0 if cached from an earlier question.
        prefill: The prompt through the decoder.
        first_token: From the question to the first token.
        decode: All tokens after the first.
    """

    look: float
    prefill: float
    first_token: float
    decode: float


@dataclass(frozen=True)
class LookTime:
    """Durations of ``look`` in milliseconds.

    Attributes:
        prepare: Preprocessing.
        upn: The detector.
    """

    prepare: float = 0.0
    upn: float = 0.0


@dataclass(frozen=True)
class Answer:
    """A complete answer.

    Attributes:
        question: The question as it was asked.
        text: What the model generated, with tags: ``<ground>a cat</ground><objects><obj3></objects>``.
        spans: The same in pieces without tags; each names its boxes.
        boxes: The boxes of the question, which ``objects`` of spans count from 0.
        tokens: Generated tokens, the end token included.
        prefill_tokens: Tokens that were prefilled for this answer; a cached prefix does not count.
        stop: ``end`` (the model ended it), ``length`` (``max_tokens``) or ``stopped``.
        milliseconds: Durations.
        prompt: The prompt as the model read it.
        gpu_bytes: Bytes of all GPU buffers at its end; ``None`` on the CPU.
    """

    question: str
    text: str
    spans: tuple[Span, ...]
    boxes: tuple[Box, ...]
    tokens: int
    prefill_tokens: int
    stop: str
    milliseconds: AskTime
    prompt: str = field(repr=False)
    gpu_bytes: Optional[int] = None

    @property
    def plain(self) -> str:
        """The words without tags."""
        return _plain(self.spans)

    def __str__(self) -> str:
        return self.plain

    @classmethod
    def _of(cls, value: dict[str, Any], question: str, boxes: tuple[Box, ...]) -> Answer:
        return cls(
            question=question,
            text=value["text"],
            spans=tuple(Span._of(span, boxes) for span in value["spans"]),
            boxes=boxes,
            tokens=value["tokens"],
            prefill_tokens=value["prefill_tokens"],
            stop=value["stop"],
            milliseconds=AskTime(**value["milliseconds"]),
            prompt=value["prompt"],
            gpu_bytes=value.get("gpu_bytes"),
        )


@dataclass(frozen=True)
class Result:
    """What :meth:`Session.batch` says about one picture.

    Attributes:
        index: The place of the picture in the batch, from 0.
        image: The picture as it was given if that was a path, else ``None``.
        width: Columns; 0 if it could not be decoded.
        height: Rows; 0 if it could not be decoded.
        proposals: The boxes that were used, best first.
        answers: One answer; one per box for ``region-caption``; none for ``propose``.
        error: What failed, or ``None``. ``proposals`` and ``answers`` are then empty.
    """

    index: int
    image: Optional[str]
    width: int = 0
    height: int = 0
    proposals: tuple[Proposal, ...] = ()
    answers: tuple[Answer, ...] = ()
    error: Optional[Error] = None

    @property
    def answer(self) -> Optional[Answer]:
        """The first answer, or ``None``."""
        return self.answers[0] if self.answers else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a line of JSON: ``image``, ``width``, ``height``, ``boxes`` (``[x1, y1, x2, y2]`` in pixels),
        ``scores``, ``labels``, ``answers`` (``question``, ``text``, ``plain``, ``spans`` with ``objects`` that count
        ``boxes`` from 0, ``tokens``, ``stop``) and ``error`` (``None``, or ``kind``, ``code``, ``place``, ``what``,
        ``advice``)."""
        return {
            "image": self.image,
            "width": self.width,
            "height": self.height,
            "boxes": [list(proposal.box) for proposal in self.proposals],
            "scores": [proposal.score for proposal in self.proposals],
            "labels": [proposal.label for proposal in self.proposals],
            "answers": [
                {
                    "question": answer.question,
                    "text": answer.text,
                    "plain": answer.plain,
                    "spans": [
                        {"text": span.text, "objects": list(span.objects)} for span in answer.spans
                    ],
                    "tokens": answer.tokens,
                    "stop": answer.stop,
                }
                for answer in self.answers
            ],
            "error": None if self.error is None else self.error.to_dict(),
        }


@dataclass(frozen=True)
class Card:
    """The loaded model and its device.

    Attributes:
        name: Short name, for example ``nano``.
        licence: Licence line.
        trained_on: What it was trained on, in a sentence.
        knows: What it knows, in a sentence, or ``None``.
        classes: The kinds that its detector names; empty if its boxes have no labels.
        text_only: Whether it reads text alone: it answers without a picture and proposes no boxes.
        multi_turn: Whether it was trained on several questions about the same boxes.
        device: ``wgpu`` or ``cpu``.
        adapter: Name of the GPU adapter or of the CPU.
        default_score: Score threshold of proposals, 0 to 1.
        default_nms: IoU threshold of non-maximum suppression, 0 to 1.
        default_max_tokens: Limit of an answer in tokens.
        engine: Version of the engine.
        weight_bytes: Bytes of weights in files.
        json: Everything that the program says of the model, with its keys.
    """

    name: str
    licence: str
    trained_on: str
    knows: Optional[str]
    classes: tuple[str, ...]
    text_only: bool
    multi_turn: bool
    device: str
    adapter: str
    default_score: float
    default_nms: float
    default_max_tokens: int
    engine: str
    weight_bytes: int
    json: dict[str, Any] = field(repr=False, compare=False)

    @classmethod
    def _of(cls, value: dict[str, Any]) -> Card:
        return cls(
            name=value["name"],
            licence=value["licence"],
            trained_on=value["trained_on"],
            knows=value.get("knows"),
            classes=tuple(value.get("classes", ())),
            text_only=value.get("text_only", False),
            multi_turn=value["multi_turn"],
            device=value["device"],
            adapter=value["adapter"],
            default_score=value["default_score"],
            default_nms=value["default_nms"],
            default_max_tokens=value["default_max_tokens"],
            engine=value["engine"],
            weight_bytes=value["weight_bytes"],
            json=value,
        )
