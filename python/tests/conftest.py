"""Shared by all tests: nano on the CPU, and its sample picture."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest

import chatrex

SAMPLES = Path(__file__).resolve().parents[2] / "web/static/samples"
SCENE = SAMPLES / "scene.png"
DETECT = "Please detect cat in this image. Answer the question with object indexes."
CAPTION = (
    "Please provide a detailed description of the image and detect all the mentioned objects. "
    "Answer the question with grounded object indexes."
)


@pytest.fixture(scope="session")
def session() -> Iterator[chatrex.Session]:
    with chatrex.Session("nano", device="cpu") as session:
        yield session


_last: list[chatrex.Picture] = []


@pytest.fixture
def picture(session: chatrex.Session) -> chatrex.Picture:
    """The sample; looked at again only if a test has looked at another picture."""
    try:
        _last[0].propose("coarse")
    except (IndexError, chatrex.Refused):
        _last[:] = [session.look(SCENE)]
    return _last[0]
