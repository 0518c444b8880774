"""The command line as tests call it."""

from collections.abc import Callable

import pytest

from cyclemlp.cli import main


def command(*arguments: object) -> int:
    """Exit status of `cyclemlp ARGUMENTS`."""
    return status_of(main, *arguments)


def status_of(program: Callable[[list[str]], None], *arguments: object) -> int:
    """Exit status of a program with these arguments."""
    try:
        program([*map(str, arguments)])
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line with which the command refuses its input."""
    assert command(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err
