"""The work grows with the number of files, not with its square: four times the names take four times the steps."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from cyclemlp.data.formats.registry import all_formats, find_format
from cyclemlp.data.problems import Findings
from cyclemlp.inference.inputs import plan

VOC = "<annotation><object><name>boat{}</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>8</xmax><ymax>8</ymax></bndbox></object></annotation>"  # noqa: E501


def images(folder: Path, names: list[str], mode: str = "RGB") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (30, 20)).save(folder / f"{names[0]}.png")
    for name in names[1:]:
        (folder / f"{name}.png").hardlink_to(folder / f"{names[0]}.png")


def coco(root: Path, names: list[str]) -> None:
    for split in ("train", "val"):
        images(root / split, names)
        listed = [{"id": i, "file_name": f"{n}.png", "width": 30, "height": 20} for i, n in enumerate(names)]
        objects = [{"id": i, "image_id": i, "category_id": i, "bbox": [2, 2, 8, 8]} for i, _ in enumerate(names)]
        categories = [{"id": i, "name": n} for i, n in enumerate(names)]
        content = {"images": listed, "annotations": objects, "categories": categories}
        (root / f"{split}.json").write_text(json.dumps(content))


def yolo(root: Path, names: list[str]) -> None:
    for split in ("train", "val"):
        images(root / "images" / split, names)
        (root / "labels" / split).mkdir(parents=True)
        for name in names:
            (root / "labels" / split / f"{name}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (root / "classes.txt").write_text("boat\n")


def voc(root: Path, names: list[str]) -> None:
    images(root / "JPEGImages", names)
    (root / "Annotations").mkdir()
    (root / "ImageSets/Main").mkdir(parents=True)
    for number, name in enumerate(names):
        (root / "Annotations" / f"{name}.xml").write_text(VOC.format(number))
    for split in ("train", "val"):
        (root / f"ImageSets/Main/{split}.txt").write_text("\n".join(names))


def masks(root: Path, names: list[str]) -> None:
    for split in ("train", "val"):
        images(root / "images" / split, names)
        images(root / "masks" / split, names, "L")


def folders(root: Path, names: list[str]) -> None:
    for split in ("train", "val"):
        for label in ("a", "b"):
            images(root / split / label, names)


def steps(work: Callable[[], object]) -> int:
    """Lines of Python that the work runs through."""
    count = 0

    def trace(_frame: object, event: str, _argument: object) -> object:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("write", [coco, yolo, voc, masks, folders])
def test_reading_a_data_set(tmp_path: Path, write: Callable[[Path, list[str]], None]) -> None:
    found = []
    for count in (50, 200):
        root = tmp_path / str(count)
        root.mkdir()
        write(root, [f"n{i}" for i in range(count)])
        found.append(steps(lambda root=root: find_format(root, all_formats()).read(root, Findings())))  # type: ignore[misc]
    assert found[1] < 4.2 * found[0], found


def test_planning_a_prediction_of_inputs_of_one_name(tmp_path: Path) -> None:
    def work(count: int) -> int:
        sources = [tmp_path / str(i) / "image.png" for i in range(count)]
        return steps(lambda: plan(sources, tmp_path / "out", {"mask": ".png"}, {}))

    assert work(400) < 2.2 * work(200)
    sources = [Path("a/x.png"), Path("b/x.png"), Path("x-2.png"), Path("c/X.png"), Path("d/x.png")]
    names = [job.files["mask"].name for job in plan(sources, tmp_path, {"mask": ".png"}, {})]
    assert names == ["x.png", "x-3.png", "x-2.png", "X-4.png", "x-5.png"]
