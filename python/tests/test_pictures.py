"""Pictures of every kind, and what is refused."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from conftest import SCENE
from PIL import Image

import chatrex


def rgb() -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    with Image.open(SCENE) as image:
        return np.asarray(image.convert("RGB"))


def test_every_kind_of_picture_gives_the_same_boxes(session: chatrex.Session) -> None:
    first = session.look(str(SCENE))
    assert len(first) > 3 and (first.width, first.height) == Image.open(SCENE).size
    scores = [proposal.score for proposal in first]
    assert scores == sorted(scores, reverse=True) and 0 < scores[-1] <= scores[0] <= 1
    array = rgb()
    wide = np.zeros((array.shape[0], array.shape[1] + 9, 3), np.uint8)
    wide[:, 4:-5] = array
    for image in [
        SCENE.read_bytes(),
        memoryview(SCENE.read_bytes()),
        np.asfortranarray(array),
        wide[:, 4:-5],
        Image.open(SCENE),
    ]:
        assert list(session.look(image)) == list(first), type(image)


def test_transparent_parts_are_white_in_files_and_in_pil(session: chatrex.Session) -> None:
    array = rgb()
    clear = np.dstack([array, np.full(array.shape[:2], 90, np.uint8)])
    image = Image.fromarray(clear, "RGBA")
    file = io.BytesIO()
    image.save(file, "PNG")
    assert list(session.look(image)) == list(session.look(file.getvalue()))


def test_orientation_of_files_is_applied(session: chatrex.Session) -> None:
    image = Image.fromarray(rgb())
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    image.resize((64, 32)).save(file, "JPEG", exif=exif)
    turned = session.look(file.getvalue())
    assert (turned.width, turned.height) == (32, 64)
    assert (session.look(Image.open(file)).width) == 64


def test_pictures_that_cannot_be_used_have_a_code(session: chatrex.Session, tmp_path: Path) -> None:
    damaged = SCENE.read_bytes()[:2000]
    (tmp_path / "cut.png").write_bytes(damaged)
    array = rgb()
    before = session.look(SCENE)
    for image, code, place in [
        (tmp_path / "none.png", "NotFound", "none.png"),
        (tmp_path / "cut.png", "InvalidInput", "cut.png"),
        (damaged, "InvalidInput", "picture"),
        (b"", "InvalidInput", "picture"),
        (Image.open(io.BytesIO(damaged)), "InvalidInput", "picture"),
        (array.astype(np.float32), "InvalidInput", "picture"),
        (array[:, :, 0], "InvalidInput", "picture"),
        (np.zeros((0, 4, 3), np.uint8), "InvalidInput", "picture"),
        (np.zeros((3, 4, 4), np.uint8), "InvalidInput", "picture"),
        (7, "InvalidInput", "picture"),
        (None, "InvalidInput", "picture"),
    ]:
        with pytest.raises(chatrex.Error) as raised:
            session.look(image)
        error = raised.value
        assert (error.code, Path(error.place).name) == (code, place), error
        assert str(error) == f"{error.place}: {error.what}" + (error.advice and f". {error.advice}")
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error) and copy.to_dict() == error.to_dict()
        expected = chatrex.NotFound if code == "NotFound" else chatrex.InvalidInput
        assert type(error) is expected
    # What was open is still open.
    assert before.answer("What is <obj0>?", max_tokens=2).tokens > 0


def test_thresholds_choose_among_all_proposals(picture: chatrex.Picture) -> None:
    every = picture.all()
    assert len(every) > len(picture)
    assert picture.choose() == list(picture)
    assert picture.choose(score=0, nms=0) == every
    assert picture.choose(score=0.5, limit=2) == [p for p in picture if p.score >= 0.5][:2]
    assert picture[0] in picture and picture[:2] == picture.proposals[:2]
    fine = picture.propose("fine", score=0, nms=0)
    assert len(fine) == len(every) and fine != every
    for bad in [{"score": float("nan")}, {"nms": "x"}, {"limit": -1}]:
        with pytest.raises(chatrex.InvalidInput):
            picture.choose(**bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="granularity"):
        picture.propose("tiny")
