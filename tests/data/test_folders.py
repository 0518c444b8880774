"""A name finds the file that it means, whatever its accents and the case of its suffix, and nothing outside."""

import json
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from cyclemlp.data.folders import Folders, may_read, outside_allowed, pair_key
from cyclemlp.data.formats.registry import find_dataset, format_of
from cyclemlp.data.inspect import inspect_dataset
from cyclemlp.data.objects import DetectionDataset
from cyclemlp.data.problems import DataRequest, Findings
from cyclemlp.documents import shown
from cyclemlp.errors import DataError

COMPOSED = unicodedata.normalize("NFC", "Über é")
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)
NAMES = ["leaf", "leaf (1)", "leaf.v2", "a.tar", "two  blanks", COMPOSED, "photo.jpg", "1 1", "-1"]
Write = Callable[[Path, list[tuple[str, str]]], Path]


def image(path: Path, size: tuple[int, int] = (30, 20)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    return path


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def voc_object(left: int) -> str:
    corners = zip(("xmin", "ymin", "xmax", "ymax"), (left + 1, 2, left + 5, 8), strict=True)
    return f"<object><name>boat</name><bndbox>{''.join(f'<{n}>{v}</{n}>' for n, v in corners)}</bndbox></object>"


def voc(root: Path, names: list[tuple[str, str]]) -> Path:
    """Image and annotation under each pair of names; the box begins at the number of the pair."""
    for number, (name, label) in enumerate(names):
        image(root / f"JPEGImages/{name}.png")
        text(root / f"Annotations/{label}.xml", f"<annotation>{voc_object(number)}</annotation>")
    for split in ("train", "val"):
        text(root / f"ImageSets/Main/{split}.txt", "".join(f"{label}\n" for _, label in names))
    return root


def voc_folders(root: Path, names: list[tuple[str, str]]) -> Path:
    for split in ("train", "val"):
        for number, (name, label) in enumerate(names):
            image(root / f"{split}/{name}.png")
            text(root / f"{split}/{label}.xml", f"<annotation>{voc_object(number)}</annotation>")
    return root


def yolo(root: Path, names: list[tuple[str, str]]) -> Path:
    for split in ("train", "val"):
        for number, (name, label) in enumerate(names):
            image(root / f"images/{split}/{name}.png")
            line = f"0 {(number + 2.5) / 30} 0.3 {5 / 30} 0.1\n"
            text(root / f"labels/{split}/{label}.txt", line)
    text(root / "classes.txt", "boat\n")
    return root


def coco(root: Path, names: list[tuple[str, str]]) -> Path:
    for split in ("train", "val"):
        images, objects = [], []
        for number, (name, label) in enumerate(names):
            image(root / f"{split}/{name}.png")
            images.append({"id": number, "file_name": f"{label}.png", "width": 30, "height": 20})
            objects.append({"id": number, "image_id": number, "category_id": 1, "bbox": [number, 2, 5, 4]})
        content = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "boat"}]}
        text(root / f"{split}.json", json.dumps(content))
    return root


def lefts(root: Path) -> dict[str, int]:
    split = find_dataset(root, DetectionDataset).splits["train"]
    pairs = zip(split.images, split.records, strict=True)
    return {path.stem: round(float(record.boxes_xyxy[0, 0])) for path, record in pairs}


def report_of(root: Path) -> tuple[str, str]:
    report = inspect_dataset(root)
    return "\n".join(map(str, report.problems)), "\n".join(map(str, report.notes))


@pytest.mark.parametrize("write", [voc, voc_folders, yolo, coco])
def test_every_image_gets_its_own_labels(tmp_path: Path, write: Write) -> None:
    write(tmp_path, [(name, name) for name in NAMES])
    assert lefts(tmp_path) == {name: number for number, name in enumerate(NAMES)}


@pytest.mark.parametrize("write", [voc, voc_folders, yolo, coco])
@pytest.mark.parametrize("pair", [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_composed_and_decomposed_names_are_the_same(tmp_path: Path, write: Write, pair: tuple[str, str]) -> None:
    write(tmp_path, [pair, ("b", "b")])
    assert lefts(tmp_path) == {pair[0]: 0, "b": 1}
    assert report_of(tmp_path)[0] == ""


def test_lines_of_a_list_as_tools_write_them(tmp_path: Path) -> None:
    voc(tmp_path, [(name, name) for name in ("leaf", "leaf (1)", "leaf.v2", "x 1")])
    lines = "leaf  1\nleaf (1) -1\nleaf.v2.png\nx 1\n"
    text(tmp_path / "ImageSets/Main/train.txt", lines.replace("\n", "\r\n"))
    assert lefts(tmp_path) == {"leaf": 0, "leaf (1)": 1, "leaf.v2": 2, "x 1": 3}
    text(tmp_path / "ImageSets/Main/train.txt", "leaf (2)\n")
    assert "train.txt lists leaf (2), which has no image" in report_of(tmp_path)[0]


@pytest.mark.parametrize(("write", "suffix", "upper"), [(yolo, ".txt", ".TXT"), (voc_folders, ".xml", ".Xml")])
def test_suffixes_of_labels_have_no_case(tmp_path: Path, write: Write, suffix: str, upper: str) -> None:
    write(tmp_path, [("a", "a"), ("b", "b")])
    for path in list(tmp_path.rglob(f"b{suffix}")):
        path.rename(path.with_suffix(upper))
    assert lefts(tmp_path) == {"a": 0, "b": 1}
    for path in list(tmp_path.rglob(f"b{upper}")):
        text(path.with_suffix(suffix), path.read_text())
    assert f"b{upper} is a second label file of its image; remove one of the two" in report_of(tmp_path)[0]
    for path in list(tmp_path.rglob("b.png")):
        path.unlink()
    assert f"b{upper} has no image" in report_of(tmp_path)[0]


def test_what_is_not_used_is_counted(tmp_path: Path) -> None:
    root = coco(tmp_path / "coco", [("a", "a")])
    image(root / "train/extra.png")
    image(root / "train/inner/more.JPG")
    assert (
        f"train.json does not list 2 images of {root / 'train'} (such as extra.png), which are not"
        in report_of(root)[1]
    )
    root = voc(tmp_path / "voc", [("a", "a")])
    image(root / "JPEGImages/extra.png")
    text(root / "Annotations/ghost.xml", "<annotation/>")
    notes = report_of(root)[1]
    assert "JPEGImages has 1 file that no list of train, val names (such as extra.png), which are not used" in notes
    assert "Annotations has 1 file that no list of train, val names (such as ghost.xml)" in notes
    root = yolo(tmp_path / "yolo", [("a", "a")])
    text(root / "labels/train/a.json", "{}")
    text(root / "labels/train.cache", "")
    assert "labels/train has 1 file that are not .txt (such as a.json), which are not used" in report_of(root)[1]


def test_images_in_folders_of_a_split_are_used(tmp_path: Path) -> None:
    yolo(tmp_path, [("a", "a")])
    image(tmp_path / "images/train/more/b.png")
    text(tmp_path / "labels/train/more/b.txt", "0 0.5 0.5 0.2 0.2\n")
    assert lefts(tmp_path) == {"a": 0, "b": 12}


@pytest.mark.parametrize(("write", "split"), [(yolo, "test"), (voc_folders, "test"), (coco, "test"), (coco, "train")])
def test_only_the_split_that_is_asked_for_has_to_exist(tmp_path: Path, write: Write, split: str) -> None:
    root = write(tmp_path, [("a", "a")])
    for path in sorted(root.rglob("train*"), reverse=True):
        path.rename(path.with_name(path.name.replace("train", split)))
    for path in [*root.rglob("val*.png"), *root.rglob("val.json"), *root.rglob("val/*")]:
        path.unlink()
    for path in list(root.rglob("val")):
        path.rmdir()
    dataset = find_dataset(root, DetectionDataset, DataRequest(split, ("boat",)))
    assert list(dataset.splits) == [split]
    assert dataset.classes == ("boat",)
    with pytest.raises(DataError, match="is missing"):
        find_dataset(root, DetectionDataset)


def test_voc_lists_of_one_split_and_data_yaml_with_one(tmp_path: Path) -> None:
    root = voc(tmp_path / "voc", [("a", "a")])
    for name in ("train", "val"):
        (root / f"ImageSets/Main/{name}.txt").rename(root / "ImageSets/Main/test.txt")
    assert len(find_dataset(root, DetectionDataset, DataRequest("test", ("boat",))).splits["test"].images) == 1
    root = yolo(tmp_path / "yolo", [("a", "a")])
    text(root / "data.yaml", "names: [boat]\ntest: images/val\n")
    assert len(find_dataset(root, DetectionDataset, DataRequest("test")).splits["test"].images) == 1


def test_a_damaged_split_that_is_not_asked_for_does_not_matter(tmp_path: Path) -> None:
    root = coco(tmp_path, [("a", "a")])
    (root / "train.json").write_text("{")
    assert len(find_dataset(root, DetectionDataset, DataRequest("val")).splits["val"].images) == 1
    with pytest.raises(DataError, match="is not JSON"):
        find_dataset(root, DetectionDataset)


def problems_of(root: Path) -> str:
    findings = Findings()
    format_of(root, DetectionDataset).read(root, findings)
    return "\n".join(map(str, findings.problems))


@pytest.mark.parametrize("kind", ["relative", "absolute"])
def test_coco_reads_nothing_outside(tmp_path: Path, kind: str) -> None:
    secret = image(tmp_path / "secret.png")
    name = str(secret) if kind == "absolute" else "../../secret.png"
    root = coco(tmp_path / "data", [("a", "a")])
    content = json.loads((root / "train.json").read_text())
    content["images"][0]["file_name"] = name
    text(root / "train.json", json.dumps(content))
    fix = "copy the files into it, or allow it with --allow-outside"
    expected = f"train.json names {shown(name)}, which lies outside of {root}; {fix}"
    assert expected in problems_of(root)
    with outside_allowed(True):
        assert problems_of(root) == ""
    assert expected in problems_of(root)


@pytest.mark.parametrize("name", ["../train/a.png", "./a.png", "sub/../a.png"])
def test_paths_that_stay_inside_are_read(tmp_path: Path, name: str) -> None:
    root = coco(tmp_path, [("a", "a")])
    (root / "train/sub").mkdir()
    content = json.loads((root / "train.json").read_text())
    content["images"][0]["file_name"] = name
    text(root / "train.json", json.dumps(content))
    assert problems_of(root) == ""


@pytest.mark.parametrize("entry", ["/", "..", "../..", "{outside}", "{outside}/list.txt"])
def test_yolo_reads_nothing_outside(tmp_path: Path, entry: str) -> None:
    outside = image(tmp_path / "outside/images/secret.png").parents[1]
    text(outside / "list.txt", "images/secret.png\n")
    root = yolo(tmp_path / "data", [("a", "a")])
    entry = entry.replace("{outside}", str(outside))
    text(root / "data.yaml", f"names: [boat]\ntrain: '{entry}'\nval: images/val\n")
    began = time.monotonic()
    assert f"data.yaml names {shown(entry)}, which lies outside of {root}" in problems_of(root)
    assert time.monotonic() - began < 5
    text(root / "data.yaml", "names: [boat]\npath: /\ntrain: images/train\nval: images/val\n")
    assert problems_of(root) == ""  # `path` names a folder of another machine


def test_a_list_of_yolo_names_nothing_outside(tmp_path: Path) -> None:
    secret = image(tmp_path / "secret.png")
    root = yolo(tmp_path / "data", [("a", "a")])
    text(root / "data.yaml", "names: [boat]\ntrain: train.txt\nval: images/val\n")
    text(root / "train.txt", f"images/train/a.png\n../secret.png\n{secret}\n")
    assert problems_of(root).count("which lies outside of") == 2


@pytest.mark.parametrize("name", ["n" * 300 + ".png", "a" * 5000 + "/a.png", "a\0.png", "a\nb.png", "\ud800.png", ""])
def test_names_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    root = coco(tmp_path, [("a", "a")])
    content = json.loads((root / "train.json").read_text())
    content["images"][0]["file_name"] = name
    text(root / "train.json", json.dumps(content))
    (line,) = problems_of(root).splitlines()
    assert "missing" in line
    assert len(line) < 500
    line.encode()
    root = yolo(tmp_path / "yolo", [("a", "a")])
    text(root / "data.yaml", f"names: [boat]\ntrain: {json.dumps(name)}\nval: images/val\n")
    assert len(problems_of(root).splitlines()) == 1


def test_a_name_finds_its_file(tmp_path: Path) -> None:
    made = image(tmp_path / DECOMPOSED / f"{DECOMPOSED}.PNG")
    folders = Folders()
    assert folders.find(tmp_path / COMPOSED / f"{COMPOSED}.png") == made
    assert folders.find(tmp_path / COMPOSED / "other.png") is None
    assert folders.find(tmp_path / "none" / "other.png") is None
    both = [image(tmp_path / "both" / f"{name}.png") for name in (COMPOSED, DECOMPOSED)]
    assert [folders.find(path) for path in both] == both
    assert pair_key(both[0]) == pair_key(both[1].with_suffix(".txt"))


def test_a_link_in_the_folder_is_followed(tmp_path: Path) -> None:
    image(tmp_path / "elsewhere/a.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train").symlink_to(tmp_path / "elsewhere")
    assert may_read(tmp_path / "data/train/a.png", tmp_path / "data")
    assert not may_read(tmp_path / "data/../elsewhere/a.png", tmp_path / "data")
