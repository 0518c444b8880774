"""Wherever a process that moves a run aside, back or away is killed, the next one finishes it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cyclemlp.tasks.aside import drop, is_waiting, put_back, set_aside, settle

OPTIONS = "data: d\nmodel: m\nout: o\nbatch-size: 1\nevaluations: 1\n"
OLD = {
    "config.yaml": OPTIONS,
    "metrics.csv": "old",
    "checkpoints/last.ckpt": "old",
    "checkpoints/best.ckpt": "old",
    "mlflow/mlflow.db": "old",
    "mlflow/.cyclemlp": "",
    "wandb/a/b": "old",
    "wandb/.cyclemlp": "",
}
NEW = {"config.yaml": OPTIONS + "lr: 1\n", "metrics.csv": "new", "tensorboard/events.out.tfevents.1": "new"}
SAVED = {**NEW, "checkpoints/last.ckpt": "new"}


class Killed(BaseException):
    pass


@contextmanager
def killed_at(operation: int) -> Iterator[list[str]]:
    """The operation on files with this number is not done, and ends the process; yields those that were begun."""
    begun = list[str]()

    def guarded(name: str) -> Callable[..., Any]:
        usual = getattr(Path, name)

        def replacement(self: Path, *arguments: Any, **options: Any) -> Any:
            begun.append(f"{name} {self.name}")
            if len(begun) == operation:
                raise Killed
            return usual(self, *arguments, **options)

        return replacement

    with pytest.MonkeyPatch.context() as patch:
        for name in ("replace", "unlink", "rmdir", "mkdir"):
            patch.setattr(Path, name, guarded(name))
        yield begun


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def content(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in files}


def beginning(folder: Path) -> None:
    write(folder, OLD)


def going_back(folder: Path) -> None:
    write(folder, OLD)
    set_aside(folder)
    write(folder, NEW)


def going_away(folder: Path) -> None:
    write(folder, OLD)
    set_aside(folder)
    write(folder, SAVED)


@pytest.mark.parametrize(
    ("prepare", "act", "expected"),
    [(beginning, set_aside, OLD), (going_back, put_back, OLD), (going_away, drop, SAVED)],
    ids=["aside", "back", "away"],
)
def test_killed_at_any_moment(
    prepare: Callable[[Path], None], act: Callable[[Path], None], expected: dict[str, str], tmp_path: Path
) -> None:
    for number in range(1, 40):
        run_dir = tmp_path / str(number)
        run_dir.mkdir()
        prepare(run_dir)
        try:
            with killed_at(number) as begun:
                act(run_dir)
        except Killed:
            settle(run_dir)
            assert content(run_dir) == expected, begun
            assert not is_waiting(run_dir)
            assert {path.name for path in run_dir.glob(".*")} <= {".lock"}
        else:
            assert number > 4
            return
    raise AssertionError("it never ended")


def test_a_file_that_the_user_has_added_meanwhile_stays(tmp_path: Path) -> None:
    going_back(tmp_path)
    write(tmp_path, {"checkpoints/mine.txt": "mine", "notes.txt": "mine"})
    settle(tmp_path)
    assert content(tmp_path) == {**OLD, "checkpoints/mine.txt": "mine", "notes.txt": "mine"}


def test_other_folders_of_these_names_are_left_alone(tmp_path: Path) -> None:
    files = {**NEW, ".replaced/notes.txt": "mine", ".dropping/model.safetensors": "mine"}
    write(tmp_path, files)
    settle(tmp_path)
    assert content(tmp_path) == files
