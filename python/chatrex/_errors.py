"""Exceptions. Every one carries the cause as a code, for programs, and sentences, for people."""

from __future__ import annotations

import json


class Error(Exception):
    """Something from outside cannot be used: a picture, a question, a file, a model, a device.

    ``str(error)`` is one line: ``place: what. advice``.

    Attributes:
        kind: The area: ``Picture``, ``Question``, ``Model``, ``File``, ``Network`` or ``Device``.
        code: The cause, one of the error codes of the documentation, for example ``NotFound``.
        place: The file, argument or device concerned, by name.
        what: What is wrong, with the actual and the expected value where there are two.
        advice: What the user can do; empty where there is nothing to do.
    """

    kind: str
    code: str
    place: str
    what: str
    advice: str

    def __init__(self, kind: str, code: str, place: str, what: str, advice: str = "") -> None:
        super().__init__(kind, code, place, what, advice)
        self.kind = kind
        self.code = code
        self.place = place
        self.what = what
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.place}: {self.what}" + (f". {self.advice}" if self.advice else "")

    def to_dict(self) -> dict[str, str]:
        """The five attributes, for example for a line of JSON."""
        return {
            "kind": self.kind,
            "code": self.code,
            "place": self.place,
            "what": self.what,
            "advice": self.advice,
        }


class InvalidInput(Error, ValueError):
    """A picture, question or option cannot be used. Codes: ``InvalidInput``, ``Unsupported``."""


class NotFound(Error):
    """A file or model does not exist. Code: ``NotFound``."""


class Damaged(Error):
    """A file of a model is damaged. Code: ``Corrupt``."""


class Refused(Error):
    """The session cannot do this now. Codes: ``NotReady`` (no picture is open, the session is closed, or it
    belongs to the process that this one is a fork of), ``InUse`` (another picture was opened since),
    ``Cancelled``."""


class DeviceError(Error):
    """The GPU or the CPU failed, or memory does not suffice. Codes: ``OutOfMemory``, ``DeviceLost``,
    ``DeviceFailed``, ``NoAdapter``, ``ShaderRejected``, ``WrongResult``, ``WorkerLost``."""


_CLASSES: dict[str, type[Error]] = {
    "InvalidInput": InvalidInput,
    "Unsupported": InvalidInput,
    "NotFound": NotFound,
    "Corrupt": Damaged,
    "NotReady": Refused,
    "InUse": Refused,
    "Cancelled": Refused,
    "OutOfMemory": DeviceError,
    "DeviceLost": DeviceError,
    "DeviceFailed": DeviceError,
    "NoAdapter": DeviceError,
    "ShaderRejected": DeviceError,
    "WrongResult": DeviceError,
    "WorkerLost": DeviceError,
}

for _class in {Error, *_CLASSES.values()}:
    _class.__module__ = "chatrex"


def of_json(text: str) -> Error:
    """The exception for a fault of the engine."""
    fault = json.loads(text)
    return _CLASSES.get(fault["code"], Error)(**fault)


def invalid(place: str, what: str, advice: str = "", kind: str = "Question") -> InvalidInput:
    """The exception for an argument that cannot be used."""
    return InvalidInput(kind, "InvalidInput", place, what, advice)
