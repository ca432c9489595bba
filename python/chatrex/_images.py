"""Pictures of any kind as pixels of the engine. NumPy and Pillow are used if the caller has them; none is imported."""

from __future__ import annotations

import os
from typing import Any, Optional, Union

from . import _chatrex
from ._errors import InvalidInput, invalid

Image = Union[str, "os.PathLike[str]", bytes, bytearray, memoryview, Any]
"""A picture: a path, the bytes of a JPEG, PNG or WebP file, an array ``[height, width, 3]`` of ``uint8`` (RGB), or a
``PIL.Image.Image``."""

_ADVICE = (
    "Give a path, the bytes of a JPEG, PNG or WebP file, a uint8 array [height, width, 3] in RGB, or a PIL image"
)


def path_of(image: Image) -> Optional[str]:
    """The path of a picture that is given by its path."""
    if isinstance(image, (str, os.PathLike)):
        return os.fsdecode(os.fspath(image))
    return None


def pixels(image: Image) -> _chatrex.Pixels:
    """Decodes a picture.

    Raises:
        Error: It cannot be read, decoded or used.
    """
    if isinstance(image, (str, os.PathLike)):
        return _chatrex.open(os.fspath(image))
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _chatrex.decode(bytes(image))
    if all(hasattr(image, name) for name in ("convert", "tobytes", "getbands")):
        return _of_pil(image)
    if hasattr(image, "__array_interface__") and hasattr(image, "tobytes"):
        return _of_array(image)
    raise _refused(f"is a {type(image).__name__}")


def _of_array(array: Any) -> _chatrex.Pixels:
    interface = array.__array_interface__
    shape, kind = tuple(interface["shape"]), interface["typestr"]
    if kind != "|u1":
        raise _refused(f"is an array of {kind!r}, expected 8-bit values without sign")
    if len(shape) != 3 or shape[2] != 3:
        raise _refused(f"is an array of the shape {list(shape)}, expected [height, width, 3]")
    height, width = shape[0], shape[1]
    if max(height, width) >= 1 << 32:
        raise _refused(f"is an array of the shape {list(shape)}")
    # In C order, whatever the strides of the array are.
    return _chatrex.from_rgb(width, height, array.tobytes())


def _of_pil(image: Any) -> _chatrex.Pixels:
    clear = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    try:
        converted = image.convert("RGBA" if clear else "RGB")
        data = converted.tobytes()
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        message = f"cannot be decoded by PIL ({error})"
        raise InvalidInput("Picture", "InvalidInput", "picture", message, "Export it again") from error
    width, height = converted.size
    return (_chatrex.from_rgba if clear else _chatrex.from_rgb)(width, height, data)


def _refused(what: str) -> InvalidInput:
    return invalid("picture", what, _ADVICE, kind="Picture")
