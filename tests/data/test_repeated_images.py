"""An image in both splits makes scores too good; nothing said so for masks and boxes."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cyclemlp.cli import main
from cyclemlp.data.inspect import inspect_dataset
from cyclemlp.data.repeated_images import repeated_in_val


def write(folder: Path, contents: dict[str, bytes]) -> list[Path]:
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


def test_the_same_file_in_both_splits(tmp_path: Path) -> None:
    long = bytes(20_000)
    train = write(tmp_path / "train", {"a": b"1", "b": long, "c": b"22"})
    inside = long[:10_000] + b"1" + long[10_001:]  # begins and ends as b does
    val = write(tmp_path / "val", {"d": b"2", "e": inside, "f": b"22", "g": long})
    (note,) = repeated_in_val({"train": train, "val": val})
    assert (note.path, note.split) == (val[2], "val")
    assert note.what == f"is the same image as {train[2]} of train, as 2 of 4 images of val are"
    assert repeated_in_val({"train": train, "val": val[:2]}) == []
    assert repeated_in_val({"train": train, "val": train})  # as in data sets of a few images, to try a program
    assert repeated_in_val({"train": train}) == []


def test_files_that_are_gone_are_left_to_others(tmp_path: Path) -> None:
    missing = [tmp_path / "a.png"]
    assert repeated_in_val({"train": missing, "val": missing}) == []


@pytest.mark.parametrize("kind", ["boxes", "masks"])
def test_a_data_set_says_so_before_its_scores_do(
    kind: str,
    write_coco: Callable[..., Path],
    write_dataset: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    box = {"id": 1, "image_id": 1, "category_id": 7, "bbox": [2, 2, 9, 9], "area": 81, "iscrowd": 0}
    root = write_coco([box]) if kind == "boxes" else write_dataset()
    pictures = root if kind == "boxes" else root / "images"
    assert not [note for note in inspect_dataset(root).notes if "same image" in note.what]
    (target,) = sorted((pictures / "val").iterdir())[:1]
    (source,) = sorted((pictures / "train").iterdir())[:1]
    shutil.copyfile(source, target)
    with pytest.raises(SystemExit) as ended:
        main(["data", str(root)])
    assert ended.value.code == 0
    assert f"{target} is the same image as {source} of train; scores will be too good" in capsys.readouterr().out
