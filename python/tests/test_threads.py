"""Several threads and processes."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from conftest import CAPTION, DETECT, SAMPLES, SCENE

import chatrex


def test_other_threads_run_while_the_engine_computes(picture: chatrex.Picture) -> None:
    times: list[float] = []
    ends = threading.Event()

    def count() -> None:
        while not ends.is_set():
            times.append(time.perf_counter())
            time.sleep(0.0005)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        start = time.perf_counter()
        for _ in range(4):
            picture.answer(CAPTION, max_tokens=100)
        end = time.perf_counter()
    finally:
        ends.set()
        thread.join()
    # With the GIL held none would fall between the first and the last quarter of one of the calls.
    inside = [t for t in times if start < t < end]
    gaps = [b - a for a, b in zip(inside, inside[1:])]
    assert len(inside) > 8 and max(gaps) < (end - start) / 8, (len(inside), max(gaps), end - start)


def test_threads_that_share_a_picture_get_the_same_answers(picture: chatrex.Picture) -> None:
    questions = [f"What is <obj{number}>?" for number in range(4)] + [DETECT]
    expected = [picture.answer(question).text for question in questions]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(2):
            answers = pool.map(picture.answer, questions)
            assert [answer.text for answer in answers] == expected
        # Threads that opened no picture ask about the current one.
        assert pool.submit(picture.session.answer, DETECT).result().text == expected[-1]


def test_a_question_about_a_replaced_picture_is_refused(session: chatrex.Session) -> None:
    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
        one = first.submit(session.look, SCENE).result()
        expected = first.submit(session.answer, DETECT).result()
        other = second.submit(session.look, SAMPLES / "cat.jpg").result()
        for refused in [
            first.submit(session.answer, DETECT),
            first.submit(session.propose),
            first.submit(one.answer, DETECT),
            second.submit(one.answer, DETECT),
        ]:
            error = refused.exception()
            assert isinstance(error, chatrex.Refused) and error.code == "InUse", error
        assert second.submit(session.answer, DETECT).result().boxes != expected.boxes
        assert first.submit(other.answer, DETECT).result().boxes == tuple(p.box for p in other[:100])
        # Looking again is all that it takes.
        first.submit(session.look, SCENE).result()
        assert first.submit(session.answer, DETECT).result().text == expected.text


def test_a_question_that_waits_keeps_its_picture(session: chatrex.Session) -> None:
    picture = session.look(SCENE)
    expected = picture.answer(DETECT).text
    stream = picture.ask(DETECT)
    other = session.look(SAMPLES / "cat.jpg")
    assert stream.result().text == expected
    assert other.answer("What is <obj0>?", [(0, 0, 9, 9)], max_tokens=1).tokens == 1


def test_a_session_without_a_picture_and_a_closed_one_are_refused() -> None:
    session = chatrex.Session("nano", device="cpu")
    assert session.card.name == "nano" and session.card.device == "cpu"
    for call in (lambda: session.answer("?"), session.propose):
        with pytest.raises(chatrex.Refused) as raised:
            call()
        assert raised.value.code == "NotReady", raised.value
    picture = session.look(SCENE)
    stream = picture.ask(CAPTION, max_tokens=400)
    session.close()
    session.close()
    assert stream.result().stop in ("stopped", "end")
    for closed in (lambda: session.look(SCENE), lambda: picture.ask("?"), picture.propose):
        with pytest.raises(chatrex.Refused) as raised:
            closed()
        assert raised.value.code == "NotReady" and "closed" in str(raised.value)
    with pytest.raises(chatrex.Refused):
        list(session.batch([SCENE], "?"))
    with pytest.raises(TypeError, match="one in each process"):
        pickle.dumps(session)


def test_models_and_options_that_do_not_exist_have_a_code() -> None:
    options: dict[str, Any]
    for model, options, code, place in [
        ("no/such/folder", {}, "NotFound", "no/such/folder"),
        ("nano", {"device": "abacus"}, "InvalidInput", "device"),
        ("nano", {"cache": "f8"}, "InvalidInput", "cache"),
        ("nano", {"cpu_activations": "int4"}, "InvalidInput", "cpu_activations"),
        ("nano", {"memory": -1}, "InvalidInput", "memory"),
        (3, {}, "InvalidInput", "model"),
    ]:
        with pytest.raises(chatrex.Error) as raised:
            chatrex.Session(model, **options)  # type: ignore[arg-type]
        assert (raised.value.code, raised.value.place) == (code, place), raised.value


def _in_a_fork(picture: chatrex.Picture, stream: chatrex.AnswerStream, answers: Any) -> None:
    codes = []
    for call in (
        lambda: picture.answer("?"),
        stream.result,
        lambda: chatrex.Session("nano", device="cpu"),
    ):
        try:
            call()
        except chatrex.Refused as error:
            codes.append(error.code)
    answers.put(codes)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_is_refused_and_does_not_hang(picture: chatrex.Picture) -> None:
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    stream = picture.ask(DETECT)
    process = context.Process(target=_in_a_fork, args=(picture, stream, answers))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert answers.get() == ["NotReady"] * 3
    assert stream.result().tokens > 0
    assert picture.answer("What is <obj0>?", max_tokens=2).tokens > 0
