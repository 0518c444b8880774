"""A folder that may not be listed, or fails while it is, is an error; it never counts as empty."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cyclemlp.data.datasets import ClassifiedDataset
from cyclemlp.data.folders import Folders, entries_of, files_below, walk
from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.errors import DataError
from cyclemlp.inference.inputs import find_inputs

ERRORS = [errno.EACCES, errno.EIO, errno.EPERM]


@pytest.fixture
def shut(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, int], None]:
    """Make listing a folder fail; the tests' user may be one whom permissions do not stop."""

    def close(folder: Path, reason: int) -> None:
        for name in ("listdir", "scandir"):
            listing: Callable[[Any], Any] = getattr(os, name)

            def failing(path: Any = ".", listing: Callable[[Any], Any] = listing) -> Any:
                if Path(os.fspath(path)) == folder:
                    raise OSError(reason, os.strerror(reason), str(path))
                return listing(path)

            monkeypatch.setattr(os, name, failing)

    return close


def photograph(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 40), path.stem).save(path)


@pytest.mark.parametrize("reason", ERRORS)
@pytest.mark.parametrize(
    "ask",
    [
        entries_of,
        lambda folder: files_below(folder.parent, [".png"]),
        lambda folder: list(walk(folder.parent)),
        lambda folder: Folders().find(folder / "red.png"),
        lambda folder: find_inputs([folder]),
    ],
    ids=["entries", "files", "walk", "find", "predict"],
)
def test_each_way_to_list_a_folder(
    tmp_path: Path, shut: Callable[[Path, int], None], ask: Callable[[Path], object], reason: int
) -> None:
    photograph(tmp_path / "d/red.png")
    shut(tmp_path / "d", reason)
    with pytest.raises(DataError) as caught:
        ask(tmp_path / "d")
    assert str(caught.value).startswith(f"{tmp_path}/d cannot be listed ({os.strerror(reason).lower()}): ")


def test_a_class_that_cannot_be_listed_is_not_left_out(tmp_path: Path, shut: Callable[[Path, int], None]) -> None:
    for split in ("train", "val"):
        for name in ("a", "b", "c"):
            photograph(tmp_path / split / name / "red.png")
    shut(tmp_path / "train" / "c", errno.EACCES)
    with pytest.raises(DataError, match="train/c cannot be listed"):
        find_dataset(tmp_path, ClassifiedDataset)


def test_a_folder_that_is_not_there_has_nothing(tmp_path: Path) -> None:
    for name in ("none", "x" * 300, "a/b"):
        assert entries_of(tmp_path / name) == []
        assert Folders().find(tmp_path / name / "red.png") is None
    assert list(walk(tmp_path / "none")) == []
