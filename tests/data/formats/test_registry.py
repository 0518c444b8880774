"""A format is one module: it registers itself, and training, evaluation and `cyclemlp data` know it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import command
from PIL import Image

from cyclemlp.data.datasets import ClassifiedDataset, ClassifiedSplit
from cyclemlp.data.formats import registry
from cyclemlp.data.formats.parsed_objects import ParsedObject
from cyclemlp.data.formats.records import LabelledImage, read_objects
from cyclemlp.data.formats.registry import DatasetFormat, all_formats, find_dataset, register
from cyclemlp.data.inspect import inspect_dataset
from cyclemlp.data.objects import DetectionDataset
from cyclemlp.data.problems import Findings
from cyclemlp.errors import DataError


def read_toy(root: Path, findings: Findings) -> ClassifiedDataset:
    """One text file with lines `SPLIT IMAGE CLASS`."""
    rows = [line.split() for line in (root / "toy.txt").read_text().splitlines()]
    classes = tuple(sorted({name for _, _, name in rows}))
    splits = {}
    for split in ("train", "val"):
        chosen = [(root / image, classes.index(name)) for part, image, name in rows if part == split]
        if not chosen:
            findings.of(split).add(root / "toy.txt", "lists no images", f"add lines that begin with {split}")
        splits[split] = ClassifiedSplit.of(chosen)
    return ClassifiedDataset(root, classes, splits)


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set in a format that one call has registered."""
    all_formats()
    monkeypatch.setattr(registry, "_registered", list(registry._registered))
    register(
        DatasetFormat("toy", ClassifiedDataset, "a toy.txt", lambda root: (root / "toy.txt").is_file(), read_toy),
    )
    for number, name in enumerate("abc"):
        Image.fromarray(np.full((8, 9, 3), 60 * number, np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "toy.txt").write_text("train a.png cat\ntrain b.png dog\nval c.png dog\n")
    return tmp_path


def test_a_registered_format_is_found_and_inspected(toy: Path) -> None:
    dataset = find_dataset(toy, ClassifiedDataset)
    assert dataset.classes == ("cat", "dog")
    assert dataset.splits["train"].labels == (0, 1)
    report = inspect_dataset(toy)
    assert (report.format, report.problems) == ("toy", ())
    assert report.splits["val"].to_dict() == {"images": 1, "pixels": 72, "class_images": {"cat": 0, "dog": 1}}


def test_a_format_of_boxes_needs_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(root: Path, findings: Findings) -> DetectionDataset:
        file = root / "boxes.toy"
        lines = [("box", line) for line in file.read_text().splitlines()]
        images = [LabelledImage(root / "a.png", file, lines)]
        splits = {split: read_objects(images, parse, findings.of(split)) for split in ("train", "val")}
        return DetectionDataset(root, ("thing",), splits)

    def parse(line: str, size: tuple[int, int]) -> ParsedObject:
        left, top, right, bottom = map(float, line.split())
        return ParsedObject((left, top, right, bottom), 0)

    all_formats()
    monkeypatch.setattr(registry, "_registered", list(registry._registered))
    register(DatasetFormat("boxes", DetectionDataset, "boxes.toy", lambda root: (root / "boxes.toy").is_file(), read))
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    (tmp_path / "boxes.toy").write_text("1 2 11 12\n5 5 40 9\n")
    record = find_dataset(tmp_path, DetectionDataset).splits["val"].records[0]
    assert record.boxes_xyxy.tolist() == [[1, 2, 11, 12], [5, 5, 30, 9]]
    report = inspect_dataset(tmp_path)
    assert report.splits["train"].to_dict()["class_objects"] == {"thing": 2}
    assert "box has the box (5, 5, 40, 9), partly outside the image of 30x20" in str(report.notes[0])


def test_its_problems_are_those_of_every_format(toy: Path) -> None:
    (toy / "toy.txt").write_text("train a.png cat\ntrain b.png dog\n")
    (toy / "b.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"toy\.txt lists no images; add lines that begin with val"):
        find_dataset(toy, ClassifiedDataset)
    assert [problem.what for problem in inspect_dataset(toy).problems] == ["lists no images", "is empty (0 bytes)"]


def test_its_layout_is_named_in_messages(toy: Path) -> None:
    with pytest.raises(DataError, match=r"is missing; give a folder with class folders .*, or a toy\.txt"):
        find_dataset(toy / "none", ClassifiedDataset)


def test_every_format_is_registered_once_and_class_folders_are_tried_last() -> None:
    known = [each.name for each in all_formats()]
    assert known == [*["masks"] * 5, "coco", "voc", "yolo", "folders"]  # of masks also ADE20K's, by split, and lists


def test_recognising_a_folder_loads_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, _cyclemlp_launcher\nfrom pathlib import Path\n"
        "from cyclemlp.data.formats.registry import all_formats, recognised\n"
        f"assert recognised(Path({str(tmp_path)!r}), all_formats()) is None\nsys.exit(int('torch' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_network_is_trained_from_it(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    where = ("--workers", 0, "--device", "cpu")
    length = ("--steps", 1, "--batch-size", 2, "--image-size", 32)
    assert command("data", toy) == 0
    assert f"{toy}: format toy, 2 classes" in capsys.readouterr().out
    assert command("train", "classification", "--data", toy, "--out", out, *length, *where, "--json") == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert command("eval", out, "--device", "cpu", "--json") == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == metrics
