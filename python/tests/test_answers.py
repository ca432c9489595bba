"""Questions, and answers while they grow."""

from __future__ import annotations

import _thread
import gc
import signal
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from conftest import CAPTION, DETECT, SCENE

import chatrex


def test_an_answer_grows_to_its_result(picture: chatrex.Picture) -> None:
    stream = picture.ask(CAPTION, max_tokens=48)
    states = list(stream)
    answer = stream.result()
    assert stream.done and stream.result() == answer
    assert answer.stop in ("end", "length") and 1 < answer.tokens <= 48
    for before, after in zip(states, states[1:]):
        assert after.plain.startswith(before.plain), (before, after)
        assert after.spans != before.spans
    assert states[-1].spans == answer.spans and states[-1].plain == answer.plain == str(answer)
    assert "<" not in answer.plain and "<ground>" in answer.text
    assert answer.milliseconds.first_token > 0 and answer.question == CAPTION


def test_spans_name_boxes(picture: chatrex.Picture) -> None:
    answer = picture.answer(DETECT)
    named = [span for span in answer.spans if span.objects]
    assert named and answer.boxes == tuple(p.box for p in picture[: chatrex.MAX_BOXES])
    for span in named:
        assert span.boxes == tuple(answer.boxes[index] for index in span.objects)
        assert not span.open


def test_boxes_of_the_caller(picture: chatrex.Picture) -> None:
    chosen = picture[:2]
    expected = picture.answer("What is <obj1>?", chosen)
    corners = [list(proposal.box) for proposal in chosen]
    for boxes in [corners, [p.box for p in chosen], np.array(corners, np.float32), iter(corners)]:
        given = picture.answer("What is <obj1>?", boxes)
        assert given.text == expected.text and len(given.boxes) == 2
    assert expected.boxes[1].width > 0 and expected.boxes[1].height > 0


def test_sampling_is_seeded(picture: chatrex.Picture) -> None:
    options = {"temperature": 1.5, "top_k": 20, "top_p": 0.9, "max_tokens": 12, "grammar": False}
    texts = {picture.answer(CAPTION, seed=seed, **options).text for seed in (1, 1, 2, 3, 4)}
    assert 1 < len(texts) <= 4
    assert picture.answer(CAPTION, max_tokens=1).stop == "length"


def test_questions_that_cannot_be_asked_have_a_code(
    session: chatrex.Session, picture: chatrex.Picture
) -> None:
    far = [0, 0, 5, 1e30]
    for question, options, place in [
        ("", {}, None),
        ("What is <obj2>?", {"boxes": picture[:2]}, None),
        ("a <|im_end|> b\ud800", {}, None),
        (7, {}, "question"),
        ("?", {"boxes": [far]}, None),
        ("?", {"boxes": [(1, 2, 3)]}, "boxes[0]"),
        ("?", {"boxes": [picture[0], (1, 2, 3, float("inf"))]}, "boxes[1]"),
        ("?", {"boxes": [(1, 2, 3, 4)] * 101}, None),
        ("?", {"max_tokens": -1}, "max_tokens"),
        ("?", {"max_tokens": 2.5}, "max_tokens"),
        ("?", {"max_tokens": 100_000}, None),
        ("?", {"temperature": float("nan")}, "temperature"),
        ("?", {"temperature": -1}, "temperature"),
        ("?", {"top_k": 65}, None),
        ("?", {"top_p": 0}, None),
        ("?", {"repetition_penalty": 0}, None),
    ]:
        with pytest.raises(chatrex.InvalidInput) as raised:
            session.answer(question, **options)  # type: ignore[arg-type]
        assert raised.value.code == "InvalidInput", raised.value
        if place is not None:
            assert raised.value.place == place, raised.value
    stream = session.ask(" ")
    with pytest.raises(chatrex.InvalidInput):
        next(stream)
    with pytest.raises(chatrex.InvalidInput):
        stream.result()


def test_earlier_turns_are_read(picture: chatrex.Picture) -> None:
    first = picture.answer("What is <obj0>?", picture[:2])
    second = picture.answer(
        "And what is <obj1>?", picture[:2], earlier=[(first.question, first.text)], max_tokens=4
    )
    assert second.prompt.index(first.question) < second.prompt.index("And what")


def test_an_answer_can_be_stopped(picture: chatrex.Picture) -> None:
    whole = picture.answer(CAPTION, max_tokens=200)
    stream = picture.ask(CAPTION, max_tokens=200)
    next(stream)
    stream.stop()
    cut = stream.result()
    # A fast engine may have ended before.
    assert cut.stop in ("stopped", whole.stop) and cut.tokens <= whole.tokens
    for _ in picture.ask(CAPTION, max_tokens=200):
        break
    gc.collect()
    # An abandoned answer does not hold up the next one, and changes nothing.
    assert picture.answer(CAPTION, max_tokens=200).text == whole.text


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Interrupts raise KeyboardInterrupt, also in a job of a shell that starts it with interrupts ignored."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_ends_an_answer(picture: chatrex.Picture) -> None:
    whole = picture.answer(CAPTION, max_tokens=200)
    waits = threading.Event()

    def interrupt() -> None:
        waits.wait()
        _thread.interrupt_main()

    thread = threading.Thread(target=interrupt)
    thread.start()
    # Those before it keep the engine busy until the interrupt has come.
    before = [picture.ask(CAPTION, max_tokens=200) for _ in range(40)]
    last = picture.ask(CAPTION, max_tokens=200)
    with pytest.raises(KeyboardInterrupt):
        waits.set()
        last.result()
    thread.join()
    for stream in before:
        stream.stop()
    assert last.result().stop == "stopped"
    assert picture.answer(CAPTION, max_tokens=200).text == whole.text


def test_a_batch_goes_on_after_a_broken_picture(session: chatrex.Session) -> None:
    picture = session.look(SCENE)
    expected = picture.answer(DETECT)
    images = [SCENE, b"no picture", "none.png", SCENE.read_bytes()]
    results = list(session.batch(images, DETECT))
    assert [result.index for result in results] == [0, 1, 2, 3]
    assert [result.image for result in results] == [str(SCENE), None, "none.png", None]
    codes = [result.error and result.error.code for result in results]
    assert codes == [None, "InvalidInput", "NotFound", None]
    for result in (results[0], results[3]):
        assert result.answer is not None and result.answer.text == expected.text
        assert result.proposals == picture.proposals[: chatrex.MAX_BOXES]
        assert (result.width, result.height) == (picture.width, picture.height)
    assert results[1].proposals == results[1].answers == ()
    # The batch has looked at other pictures.
    with pytest.raises(chatrex.Refused) as raised:
        picture.answer("What is <obj0>?")
    assert raised.value.code == "InUse"


def test_tasks_of_a_batch(session: chatrex.Session) -> None:
    def only(task: str, **options: float) -> chatrex.Result:
        (result,) = session.batch([SCENE], task=task, max_tokens=8, **options)  # type: ignore[arg-type]
        assert result.error is None
        return result

    assert only("propose").answers == ()
    assert [a.question for a in only("detect:cat, dog").answers] == [DETECT.replace("cat", "cat; dog")]
    regions = only("region-caption", score=0.5)
    assert len(regions.answers) == len(regions.proposals) > 1
    assert "<obj1>" in regions.answers[1].question
    for options in [{}, {"question": "?", "task": "caption"}, {"task": "fly"}, {"task": "count"}]:
        with pytest.raises(chatrex.InvalidInput):
            session.batch([SCENE], **options)  # type: ignore[arg-type]
    with pytest.raises(chatrex.InvalidInput):
        session.batch(str(SCENE), "?")


def test_a_batch_reads_few_pictures_in_advance(session: chatrex.Session) -> None:
    read = []

    def images():  # type: ignore[no-untyped-def]
        for number in range(4):
            read.append(number)
            yield b"no picture" if number else SCENE
        raise RuntimeError("the list ends")

    batch = session.batch(images(), task="propose", ahead=2)
    assert next(batch).index == 0 and read == [0, 1, 2]
    with pytest.raises(RuntimeError, match="the list ends"):
        list(batch)
