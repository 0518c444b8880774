import logging

import pytest

from cyclemlp import progress
from cyclemlp.progress import progress_bar


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(progress, "FIRST_LINE", 0.0)
    monkeypatch.setattr(progress, "NEXT_LINES", 0.0)
    monkeypatch.setattr(progress, "shows_bars", lambda: False)
    caplog.set_level(logging.INFO)


def test_a_log_gets_lines_with_the_time_left(caplog: pytest.LogCaptureFixture) -> None:
    assert list(progress_bar(range(5), what="evaluation", unit="images")) == [0, 1, 2, 3, 4]
    assert caplog.messages[0].startswith("evaluation: 1/5 images, ")
    assert all(message.endswith(" left") for message in caplog.messages)
    assert len(caplog.messages) == 4  # what is done needs no line


def test_by_hand_and_without_a_total(caplog: pytest.LogCaptureFixture) -> None:
    with progress_bar(what="drawing", unit="windows", total=3) as bar:
        bar.update(2)
    list(progress_bar(iter("ab"), what="film", unit="frames"))
    assert [message.split(",")[0] for message in caplog.messages] == [
        "drawing: 2/3 windows",
        "film: 1 frames",
        "film: 2 frames",
    ]


def test_silence(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(progress_bar(range(3), what="windows", unit="windows", shown=False)) == [0, 1, 2]
    monkeypatch.setattr(progress, "FIRST_LINE", 60.0)
    assert list(progress_bar(range(3), what="short work", unit="files")) == [0, 1, 2]
    assert caplog.messages == []


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "shows_bars", lambda: True)
    list(progress_bar(range(3), what="evaluation", unit="images"))
    assert "evaluation" in capsys.readouterr().err
