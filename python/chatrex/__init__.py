"""Ask questions about pictures; answers point at boxes.

>>> import chatrex
>>> with chatrex.Session("nano", device="cpu") as session:  # doctest: +SKIP
...     picture = session.look("scene.png")
...     for partial in session.ask("What is <obj0>?"):
...         print(partial.plain)

Boxes are ``(x1, y1, x2, y2)`` in pixels of the picture, after its EXIF orientation; scores are 0 to 1; durations are
milliseconds. Everything that fails raises :class:`Error` with a ``code``.
"""

from __future__ import annotations

from ._chatrex import MAX_BOXES, VERSION as __version__
from ._errors import Damaged, DeviceError, Error, InvalidInput, NotFound, Refused
from ._images import Image
from ._session import AnswerStream, Picture, Session
from ._types import Answer, AskTime, Box, Card, LookTime, Partial, Proposal, Result, Span

__all__ = [
    "MAX_BOXES",
    "Answer",
    "AnswerStream",
    "AskTime",
    "Box",
    "Card",
    "Damaged",
    "DeviceError",
    "Error",
    "Image",
    "InvalidInput",
    "LookTime",
    "NotFound",
    "Partial",
    "Picture",
    "Proposal",
    "Refused",
    "Result",
    "Session",
    "Span",
    "__version__",
]
