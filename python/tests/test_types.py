"""Stubs, annotations and docstrings agree with the module."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import chatrex
from chatrex import _chatrex


@pytest.mark.parametrize(
    "arguments",
    [["mypy.stubtest", "chatrex._chatrex"], ["mypy", "--strict", "--no-incremental", "-p", "chatrex"]],
)
def test_types_are_those_of_the_stubs(arguments: list[str], tmp_path: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=str(tmp_path), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_public_names_have_docstrings_and_hints() -> None:
    assert chatrex.__version__ == _chatrex.VERSION
    for name in chatrex.__all__:
        thing = getattr(chatrex, name)
        if not inspect.isclass(thing):
            continue
        assert inspect.getdoc(thing), name
        for member, function in inspect.getmembers(thing, inspect.isfunction):
            if not member.startswith("_") and function.__module__.startswith("chatrex"):
                assert inspect.getdoc(function), f"{name}.{member}"
                assert "return" in inspect.get_annotations(function), f"{name}.{member}"
    arguments = inspect.signature(chatrex.Session.ask).parameters
    described = chatrex.Session.ask.__doc__ or ""
    assert all(f"{argument}: " in described for argument in arguments if argument != "self")
