"""`--overwrite`: a fault while the replaced run is put away or deleted costs neither run."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from cyclemlp.tasks.aside import drop, is_waiting, settle
from cyclemlp.tasks.segmentation.config import SegmentationConfig
from cyclemlp.training.run_folder import begun

OLD = {
    "metrics.csv": "old",
    "model.safetensors": "old",
    "checkpoints/last.ckpt": "old",
    "checkpoints/best.ckpt": "old",
    "tensorboard/events.out.tfevents.1": "old",
    "mlflow/mlflow.db": "old",
    "mlflow/.cyclemlp": "",
    "wandb/a/b": "old",
    "wandb/.cyclemlp": "",
}
NEW = {"metrics.csv": "new", "checkpoints/last.ckpt": "new"}


class Fault:
    """The operation on files with this number raises `error`, and so does the same one when it is tried again."""

    def __init__(self, number: int, error: BaseException) -> None:
        self.number, self.error = number, error
        self.begun = list[tuple[str, str]]()

    def check(self, operation: str, path: Path | str) -> None:
        self.begun.append((operation, Path(path).name))
        if len(self.begun) >= self.number and self.begun[-1] == self.begun[self.number - 1]:
            raise self.error

    @contextmanager
    def watching(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("replace", "unlink", "rmdir"):
                patch.setattr(Path, name, self._guarded(name, getattr(Path, name)))
            patch.setattr(shutil, "rmtree", self._guarded("rmtree", shutil.rmtree))
            yield

    def _guarded(self, name: str, usual: Any) -> Any:
        def guarded(path: Path, *arguments: Any, **options: Any) -> Any:
            self.check(name, path)
            return usual(path, *arguments, **options)

        return guarded


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def content(folder: Path) -> dict[str, str]:
    """What is in the folder, without its options, its lock and hidden folders."""
    paths = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    shown = {str(name): path for name, path in paths.items() if not name.parts[0].startswith(".")}
    return {name: path.read_text(encoding="utf-8") for name, path in shown.items() if name != "config.yaml"}


def replacing(run_dir: Path) -> SegmentationConfig:
    """The options of a run in a folder that holds an old one."""
    config = SegmentationConfig(data=run_dir.parent / "data", out=run_dir)
    with begun("segmentation", config):
        write(run_dir, OLD)
    return SegmentationConfig(data=run_dir.parent / "data", out=run_dir, overwrite=True)


def drop_within(run_dir: Path, fault: Fault) -> None:
    """A new run that writes its first checkpoint, with a fault while the old run is removed."""
    with begun("segmentation", replacing(run_dir)):
        write(run_dir, NEW)
        with fault.watching():
            drop(run_dir)


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), KeyboardInterrupt()], ids=["refused", "stopped"]
)
def test_whatever_fails_while_the_old_run_is_removed_the_new_one_stays(
    error: BaseException, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(1, 40):
        run_dir, fault = tmp_path / str(number), Fault(number, error)
        caplog.clear()
        try:
            drop_within(run_dir, fault)
        except KeyboardInterrupt:
            assert isinstance(error, KeyboardInterrupt)
        assert content(run_dir) == NEW, fault.begun
        assert not is_waiting(run_dir)
        assert all(len(words) <= 200 for words in caplog.messages if "Permission" in words)
        if len(fault.begun) < number:
            assert number > 6
            return
        settle(run_dir)
        assert content(run_dir) == NEW, fault.begun
        assert sorted(path.name for path in run_dir.glob(".*")) == [".lock"]
    raise AssertionError("it never ended")


def test_a_file_that_is_still_open_does_not_end_the_training(tmp_path: Path) -> None:
    """On NFS, what is deleted while it is open stays as .nfsXXXX until it is closed."""
    run_dir = tmp_path / "run"
    with begun("segmentation", replacing(run_dir)):
        write(run_dir, {**NEW, ".replaced/tensorboard/.nfs0001": "open", ".replaced/.nfs0002": "open"})
        drop(run_dir)
    assert content(run_dir) == NEW
    for path in run_dir.rglob(".nfs*"):
        path.unlink()
    settle(run_dir)
    assert [path.name for path in run_dir.glob(".*")] == [".lock"]


def test_a_run_that_cannot_come_back_at_once_does_with_the_next_command(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And the reason why the new one ended is what is raised."""
    run_dir, config = tmp_path / "run", replacing(tmp_path / "run")
    fault = Fault(5, PermissionError(13, "Permission denied"))  # after four folders that are not there
    with pytest.raises(MemoryError), ExitStack() as stack, begun("segmentation", config):  # noqa: PT012
        stack.enter_context(fault.watching())
        write(run_dir, {"metrics.csv": "new"})
        raise MemoryError
    assert f"the replaced run is not back in {run_dir} yet (" in caplog.text
    settle(run_dir)
    assert content(run_dir) == OLD
