"""What the system refuses is one line and exit status 2, whatever the streams can show."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

COMMAND = (sys.executable, "-c", "from _cyclemlp_launcher import main; main()")


def run(*arguments: str, redirect: str = "", encoding: str = "utf-8") -> subprocess.CompletedProcess[str]:
    """The command as a shell starts it, with streams of another encoding or none."""
    script = f'exec "$@" {redirect}'
    environment = {"PATH": "/usr/bin:/bin", "PYTHONIOENCODING": encoding, "PYTHONPATH": ":".join(sys.path)}
    return subprocess.run(
        ["/bin/sh", "-c", script, "sh", *COMMAND, *arguments],
        capture_output=True, text=True, encoding="utf-8", errors="replace", check=False, env=environment,
    )  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Class folders whose names no narrow encoding has."""
    for split in ("train", "val"):
        for name in ("жук", "花"):
            folder = tmp_path / "d" / split / name
            folder.mkdir(parents=True)
            Image.new("RGB", (40, 40), "red" if name == "花" else "blue").save(folder / f"{split}.png")
    return tmp_path / "d"


def test_names_that_the_terminal_cannot_show(data: Path) -> None:
    answer = run("data", str(data), encoding="ascii")
    assert "Traceback" not in answer.stderr
    assert "\\u82b1" in answer.stdout + answer.stderr


def test_closed_streams(data: Path) -> None:
    answer = run("data", str(data), redirect=">&- 2>&-")
    assert answer.returncode in (0, 2)
    assert "Traceback" not in answer.stdout + answer.stderr


def test_a_reader_that_has_gone(data: Path) -> None:
    answer = run("data", str(data), redirect="| true")
    assert "Traceback" not in answer.stderr
    assert "Exception ignored" not in answer.stderr


def test_a_name_that_no_file_can_have(data: Path, tmp_path: Path) -> None:
    answer = run("predict", str(data), str(data / "train"), "--out", str(tmp_path / ("x" * 300)))
    assert answer.returncode == 2
    assert "Traceback" not in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1
