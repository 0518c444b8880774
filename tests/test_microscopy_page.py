"""What docs/microscopy.md says: its commands and its block run, on files as microscopes write them."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from command_line import command, refused
from PIL import Image

from cyclemlp.cli import app
from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.held_out import HoldOut
from cyclemlp.data.masks import MaskDataset
from cyclemlp.data.objects import DetectionDataset
from cyclemlp.data.outlines import whole_mask
from cyclemlp.data.problems import DataRequest

tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
pytestmark = pytest.mark.usefixtures("one_thread")

PAGE = (Path(__file__).parents[1] / "docs" / "microscopy.md").read_text(encoding="utf-8")
LINES = re.findall(r"^ {4}(cyclemlp .*)$", PAGE, re.MULTILINE)
(BLOCK,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
QUICK = ["--steps", "1", "--batch-size", "2", "--workers", "0", "--device", "cpu", "--evaluations", "1"]
QUICK += ["--head-width", "8"]
EDGE = 64
CENTRES = ((16, 16), (16, 46), (46, 16), (48, 44))


def labels_of(number: int) -> np.ndarray:
    """Four discs, numbered from 1 on."""
    rows, columns = np.mgrid[:EDGE, :EDGE]
    labels = np.zeros((EDGE, EDGE), np.uint16)
    for label, (row, column) in enumerate(CENTRES, start=1):
        labels[(rows - row) ** 2 + (columns - column) ** 2 < (6 + (number + label) % 4) ** 2] = label
    return labels


def write_image(path: Path, labels: np.ndarray) -> None:
    """Two channels of 12 bits in an OME-TIFF, or in an ImageJ file where the name does not say OME."""
    random = np.random.default_rng(0)
    dapi = np.where(labels > 0, 2500, 300) + random.integers(0, 300, labels.shape)
    actin = np.where(labels > 0, 600, 900) + random.integers(0, 300, labels.shape)
    kind = {} if ".ome" in path.name else {"imagej": True}
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.stack([dapi, actin]).astype(np.uint16), metadata={"axes": "CYX"}, **kind)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`cells` with masks, `labels` and the images of `nuclei`, and `slides` to predict."""
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        labels = labels_of(number)
        write_image(Path(f"cells/images/{number}.ome.tif"), labels)
        Path("cells/masks").mkdir(exist_ok=True)
        mask = Image.fromarray(np.where(labels > 0, 255, 0).astype(np.uint8))
        mask.save(f"cells/masks/{number}{'_mask' * (number % 2)}.png")
        split = "train" if number < 2 else "val"
        write_image(Path(f"nuclei/{split}/{number}.tif"), labels)
        Path("labels", split).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(f"labels/{split}/{number}.tif", labels)
    write_image(Path("slides/a.ome.tif"), labels)
    return tmp_path


@pytest.mark.parametrize("line", LINES)
def test_commands_parse(line: str) -> None:
    app.parse_args(line.split()[1:], exit_on_error=False, print_error=False)


def run(words: list[str]) -> None:
    quick = (
        [*QUICK, *([] if "instance-segmentation" in words else ["--crop-size", "32"])] if words[0] == "train" else []
    )
    assert command(*words, *quick) == 0


def test_masks_of_ome_tiff_train_and_objects_are_measured(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line in (line for line in LINES if {"cells", "run"} & set(line.split())):
        run(line.split()[1:])
    shown = capsys.readouterr().out
    assert "classes: 0 in a mask is background, 255 is object" in shown
    card, dapi = (json.loads(Path(f"{name}/model.json").read_text()) for name in ("run", "run-dapi"))
    assert (card["in_chans"], card["value_range"], dapi["bands"]) == (2, [0, 4095], [1])
    with Path("predicted/objects.csv").open(encoding="utf-8") as file:
        assert next(csv.reader(file))[:3] == ["image", "class", "area"]


def test_label_images_become_outlines(folder: Path) -> None:
    exec(compile(BLOCK, "microscopy.md", "exec"), {})
    dataset = find_dataset(Path("nuclei"), DetectionDataset)
    for split in dataset.splits.values():
        for path, record in zip(split.images, split.records, strict=True):
            labels = labels_of(int(path.stem))
            assert len(record.labels) == len(CENTRES)
            for number, outline in enumerate(record.segmentations, start=1):
                assert outline is not None
                assert np.array_equal(whole_mask(outline, (EDGE, EDGE)), labels == number)
    for line in (line for line in LINES if {"nuclei", "run-nuclei"} & set(line.split())):
        run(line.split()[1:])
    assert Path("predicted-nuclei/coco_results.json").is_file()
    assert Path("predicted-nuclei/objects.csv").is_file()


@pytest.mark.parametrize("together", [False, True])
def test_which_mask_belongs_to_an_ome_tiff(together: bool, tmp_path: Path) -> None:
    """Also where an image of the same name without .ome has a mask of its own."""
    images, masks = (tmp_path, tmp_path) if together else (tmp_path / "images", tmp_path / "masks")
    masks.mkdir(exist_ok=True)
    for name, ending in (("a", "_mask.png"), ("b", "_mask.tif"), ("c", ".ome_mask.png")):
        write_image(images / f"{name}.ome.tif", labels_of(0))
        mask = (labels_of(0) > 0).astype(np.uint8)
        if ending.endswith("tif"):
            tifffile.imwrite(masks / f"{name}{ending}", mask)
        else:
            Image.fromarray(mask).save(masks / f"{name}{ending}")
    dataset = find_dataset(tmp_path, MaskDataset, DataRequest(hold_out=HoldOut(0.3)))
    pairs = {
        image.name: mask.name
        for split in dataset.splits.values()
        for image, mask in zip(split.images, split.masks, strict=True)
    }
    assert pairs == {"a.ome.tif": "a_mask.png", "b.ome.tif": "b_mask.tif", "c.ome.tif": "c.ome_mask.png"}


def test_a_stack_is_refused_by_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tifffile.imwrite("cells/images/0.ome.tif", np.zeros((3, EDGE, EDGE), np.uint16), metadata={"axes": "ZYX"})
    message = refused(capsys, "train", "segmentation", "--data", "cells", "--val-share", "0.25", "--out", "r")
    assert "0.ome.tif" in message
    assert "ZYX" in message
