"""A stored label means what its author meant, or is refused or noted by its name, in COCO, VOC and YOLO."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cyclemlp.data.formats.registry import format_of
from cyclemlp.data.objects import DetectionDataset, Record
from cyclemlp.data.problems import Findings

WriteCoco = Callable[..., Path]
TRIANGLE = [4.0, 2.0, 25.5, 3.0, 12.0, 17.5]


def annotation(number: int, bbox: object, **fields: Any) -> dict[str, Any]:
    return {"id": number, "image_id": 1, "category_id": 7, "bbox": bbox} | fields


def read(root: Path) -> tuple[Record, str, str]:
    """The first record of train; problems; flaws and notes."""
    findings = Findings()
    dataset = format_of(root, DetectionDataset).read(root, findings)
    records = dataset.splits["train"].records if "train" in dataset.splits else ()
    record = records[0] if records else Record(0, (0, 0), *[np.zeros(0)] * 4, ())  # type: ignore[arg-type, call-arg]
    notes = (*findings.flaws, *findings.notes)
    return record, "\n".join(map(str, findings.problems)), "\n".join(map(str, notes))


@pytest.mark.parametrize(
    ("given", "crowd"),
    [
        (0, False),
        (1, True),
        ("0", False),
        ("1", True),
        (False, False),
        (True, True),
        (None, False),
        ("", False),
        ("false", False),
        ("True", True),
        (0.0, False),
        (1.0, True),
    ],
)
def test_iscrowd_however_it_is_written(write_coco: WriteCoco, given: object, crowd: bool) -> None:
    root = write_coco([annotation(1, [2, 3, 10, 5], iscrowd=given), annotation(2, [2, 3, 9, 5])])
    record, problems, _ = read(root)
    assert record.crowd.tolist() == [crowd, False]
    assert problems == ""


@pytest.mark.parametrize(("given", "ignored"), [(1, True), (True, True), (0, False), (None, False)])
def test_objects_marked_as_ignored_are_regions_to_ignore(write_coco: WriteCoco, given: object, ignored: bool) -> None:
    root = write_coco([annotation(1, [2, 3, 10, 5], ignore=given), annotation(2, [2, 3, 9, 5], iscrowd=0)])
    record, problems, _ = read(root)
    assert (record.crowd.tolist(), problems) == ([ignored, False], "")


def test_whole_numbers_however_they_are_written(write_coco: WriteCoco) -> None:
    images = [{"id": "1", "file_name": "a.png", "width": 30.0, "height": "20"}]
    categories = [{"id": "7", "name": "boat"}, {"id": 3.0, "name": "buoy"}]
    objects = [annotation(1, [2, 3, 10, 5], category_id="7", image_id=1.0), annotation(2, [1, 3, 9, 5], category_id=3)]
    record, problems, _ = read(write_coco(objects, images=images, categories=categories))
    assert problems == ""
    assert record.labels.tolist() == [1, 0]
    assert record.size == (20, 30)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"iscrowd": 2}, "annotation 1 has iscrowd 2; write 0 or 1"),
        ({"iscrowd": "perhaps"}, "annotation 1 has iscrowd 'perhaps'; write 0 or 1"),
        ({"iscrowd": [0]}, "annotation 1 has iscrowd [0]; write 0 or 1"),
        ({"area": -5}, "annotation 1 has the area -5; write the pixels of the object, or remove it"),
        ({"area": float("nan")}, "annotation 1 has the area nan"),
        ({"area": float("inf")}, "annotation 1 has the area inf"),
        ({"area": 10**400}, "annotation 1 has the area 1000"),
        ({"area": "50"}, "annotation 1 has the area '50'"),
        ({"category_id": True}, "annotation 1 is of category True, which is not listed; correct it to one of 3, 7"),
        ({"category_id": 10**400}, "annotation 1 is of category 1000"),
        ({"category_id": [7]}, "annotation 1 is of category [7]"),
        ({"bbox": [2, 3, 10**400, 5]}, "annotation 1 has the bbox [2, 3, 1000"),
        ({"bbox": [2, 3, True, 5]}, "annotation 1 has the bbox [2, 3, True, 5]"),
        ({"bbox": ["2", 3, 4, 5]}, "annotation 1 has the bbox ['2', 3, 4, 5]"),
        ({"bbox": [2, 3, float("nan"), 5]}, "annotation 1 has the bbox [2, 3, nan, 5]"),
        ({"segmentation": {"size": 5, "counts": "1"}}, "annotation 1 has a segmentation of size 5, but its image is"),
        ({"segmentation": {"size": [30, 20], "counts": "1"}}, "annotation 1 has a segmentation of size [30, 20], but"),
        ({"segmentation": {"size": [20, 30], "counts": [True, 599]}}, "whose RLE does not add up"),
        ({"segmentation": {"size": [20, 30], "counts": "\ud800"}}, "annotation 1 has a segmentation whose RLE cannot"),
        ({"segmentation": [[10**400, 1, 2, 3, 4, 5]]}, "with a polygon that is not a list of numbers"),
        ({"segmentation": [[1e300, 1, 2, 3, 4, 5]]}, "with a point more than 1e+12 pixels away"),
        ({"segmentation": "6P"}, "annotation 1 has a segmentation that is neither a list of polygons nor an RLE"),
        ({"segmentation": TRIANGLE}, "annotation 1 has a segmentation with a polygon that is not a list of three"),
        (
            {"bbox": [24, 15, 5, 4], "segmentation": [TRIANGLE]},
            "(24, 15, 29, 19), but its outline spans (4, 2, 25.5, 17",
        ),
        ({"segmentation": [[0.2, 0.1, 0.9, 0.1, 0.5, 0.8]]}, "but its outline spans (0.2, 0.1, 0.9, 0.8)"),
        ({"segmentation": [[90, 80, 95, 80, 95, 90]]}, "has an outline without a pixel in its image"),
        ({"segmentation": {"size": [20, 30], "counts": [600]}}, "has an outline without a pixel in its image"),
    ],
)
def test_what_has_no_meaning_is_named(write_coco: WriteCoco, fields: dict[str, Any], message: str) -> None:
    _, problems, _ = read(write_coco([annotation(1, [2, 3, 10, 5]) | fields, annotation(2, [4, 2, 20, 15])]))
    lines = [line for line in problems.splitlines() if "train.json" in line]
    assert len(lines) == 1
    assert message in lines[0]
    assert len(lines[0]) < 400


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((10**9, 10**9), "1000000000 x 1000000000"),
        (("wide", 20), "'wide' x 20"),
        ((-30, 20), "-30 x 20"),
        ((5.5, 2), "5.5"),
    ],
)
def test_a_size_that_no_image_has(write_coco: WriteCoco, size: tuple[object, object], shown: str) -> None:
    images = [{"id": 1, "file_name": "a.png", "width": size[0], "height": size[1]}]
    record, problems, _ = read(write_coco([annotation(1, [2, 3, 10, 5])], images=images))
    assert f"train.json image 'a.png' has the size {shown}" in problems
    assert record.size == (20, 30)


def test_boxes_written_as_corners_are_refused(write_coco: WriteCoco) -> None:
    corners = [[2, 3, 12, 8], [14, 9, 30, 20], [20, 1, 28, 9]]
    root = write_coco([annotation(i, box) for i, box in enumerate(corners)])
    _, problems, _ = read(root)
    fix = "write [left, top, width, height]"
    assert f"train.json has boxes that fit their images only as [left, top, right, bottom]; {fix}" in problems
    _, problems, _ = read(write_coco([annotation(i, box) for i, box in enumerate([*corners, [14, 9, 4, 6]])]))
    assert problems == ""  # the last has no meaning as corners
    areas = [annotation(1, [2, 3, 12, 8], area=50), annotation(2, [4, 4, 6, 6], area=4)]
    _, problems, _ = read(write_coco(areas))  # they all lie within the image, but the areas are those of corners
    assert "fit their images only as [left, top, right, bottom]" in problems
    outlined = annotation(1, [4, 2, 14, 9], segmentation=[[4, 2, 14, 2, 14, 9, 4, 9]])
    assert "fit their images only as [left, top, right, bottom]" in read(write_coco([outlined]))[1]


PLACES = [(left, top) for left in (0, 8, 15, 22) for top in (0, 7, 14)]


@pytest.mark.parametrize(
    ("form", "boxes"),
    [
        ("[centre x, centre y, width, height]", [[left + 4, top + 3, 8, 6] for left, top in PLACES]),
        ("[top, left, height, width]", [[top, left, 6, 8] for left, top in PLACES]),
        ("[top, left, bottom, right]", [[top, left, top + 6, left + 8] for left, top in PLACES]),
    ],
)
def test_boxes_that_are_moved_or_turned_are_refused(write_coco: WriteCoco, form: str, boxes: list[list[int]]) -> None:
    _, problems, _ = read(write_coco([annotation(i, box) for i, box in enumerate(boxes)]))
    assert f"train.json has boxes that fit their images only as {form}; write [left, top, width, height]" in problems


def test_a_few_boxes_beyond_their_images_are_cut(write_coco: WriteCoco) -> None:
    beyond = [annotation(i, [20 + i / 2, 10, 12, 6]) for i in range(4)]  # which would fit by their centres
    _, problems, flaws = read(write_coco(beyond))
    assert problems == ""
    assert "partly outside the image of 30x20; the box is cut to the image" in flaws


def test_corners_in_place_of_centres_are_refused(tmp_path: Path) -> None:
    rows = [f"0 {left} {top} 0.3 0.3" for left in (0, 0.35, 0.7) for top in (0, 0.35, 0.7)]
    _, problems, _ = read(yolo(tmp_path, "\n".join(rows)))
    form = "class left top width height; write class cx cy width height"
    assert f"has boxes that fit their images only as {form}" in problems


def test_boxes_in_shares_are_refused(write_coco: WriteCoco) -> None:
    root = write_coco([annotation(1, [0.1, 0.2, 0.5, 0.3]), annotation(2, [0.4, 0.2, 0.55, 0.7])])
    assert "has no box beyond the first pixel of an image, as if they were shares" in read(root)[1]
    assert read(write_coco([annotation(1, [0, 0, 1, 1])]))[1] == ""


@pytest.mark.parametrize(("count", "beyond", "noted"), [(30, 0, True), (30, 1, False), (29, 0, False)])
def test_boxes_that_never_leave_a_quarter_are_noted(tmp_path: Path, count: int, beyond: int, noted: bool) -> None:
    rows = [f"0 {0.05 + 0.01 * i:.3f} 0.3 0.1 0.2" for i in range(count - beyond)] + ["0 0.3 0.7 0.1 0.1"] * beyond
    _, problems, notes = read(yolo(tmp_path, "\n".join(rows)))
    what = f"labels/train has {count} boxes, none of which reaches beyond the upper left quarter of its image; if they"
    assert (problems, what in notes) == ("", noted)


def test_repeated_objects_count_once_and_are_noted(write_coco: WriteCoco) -> None:
    objects = [annotation(1, [2, 3, 10, 5]), annotation(2, [2, 3, 10, 5]), annotation(3, [2, 3, 10, 5], category_id=3)]
    record, problems, notes = read(write_coco(objects))
    assert record.labels.tolist() == [1, 0]
    assert problems == ""
    assert "annotation 2 is the same as annotation 1; the object is left out; correct or remove it" in notes
    outlined = [annotation(i, [4, 2, 21.5, 15.5], segmentation=[[*TRIANGLE[:5], 17.5 - i]]) for i in (0, 1)]
    assert len(read(write_coco(outlined))[0].labels) == 2  # another outline in the same box


def test_no_object_at_all(write_coco: WriteCoco) -> None:
    root = write_coco([])
    _, problems, notes = read(root)
    assert problems == f"{root / 'train.json'} has no objects to learn from; annotate some images"
    assert f"{root / 'val.json'} has no objects, so there is nothing to score; annotate some" in notes
    assert "has no objects to learn from" in read(write_coco([annotation(1, [2, 3, 10, 5], iscrowd=1)]))[1]


def yolo(root: Path, text: str, extra: str = "", size: tuple[int, int] = (100, 100)) -> Path:
    for split in ("train", "val"):
        for folder in ("images", "labels"):
            (root / folder / split).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(root / f"images/{split}/a.png")
        (root / f"labels/{split}/a.txt").write_text(text)
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames: [boat, buoy]\n{extra}")
    return root


@pytest.mark.parametrize(("count", "values"), [(4, 2), (3, 2), (4, 3), (1, 3), (17, 3)])
def test_keypoints_are_no_outlines(tmp_path: Path, count: int, values: int) -> None:
    points = " ".join(["0.1 0.9", "0.1 0.9 2"][values - 2] for _ in range(count))
    record, problems, _ = read(yolo(tmp_path, f"0 0.5 0.5 0.2 0.2 {points}\n", f"kpt_shape: [{count}, {values}]\n"))
    assert problems == ""
    np.testing.assert_allclose(record.boxes_xyxy, [[40, 40, 60, 60]], atol=1e-4)
    assert record.segmentations == (None,)


@pytest.mark.parametrize(
    ("shape", "row", "message"),
    [
        ("[4, 2]", "0 0.5 0.5 0.2 0.2 0.1 0.1", "line 1 has 7 values; write class cx cy width height and the 8 values"),
        ("[4, 4]", "0 0.5 0.5 0.2 0.2", "data.yaml has the kpt_shape [4, 4]; write [number of keypoints, 2 or 3"),
        ("4", "0 0.5 0.5 0.2 0.2", "data.yaml has the kpt_shape 4"),
        ("[0, 2]", "0 0.5 0.5 0.2 0.2", "data.yaml has the kpt_shape [0, 2]"),
    ],
)
def test_keypoints_that_do_not_fit(tmp_path: Path, shape: str, row: str, message: str) -> None:
    assert message in read(yolo(tmp_path, row, f"kpt_shape: {shape}\n"))[1]


CENTRES = [(0.2, 0.3), (0.5, 0.5), (0.8, 0.7), (0.3, 0.8)]
OFFSETS = [(-0.09, -0.09), (0.09, -0.08), (0.0, 0.01), (0.08, 0.09)]


@pytest.mark.parametrize("visible", ["", " 1"])
def test_keypoints_whose_number_nothing_says(tmp_path: Path, visible: str) -> None:
    rows = [
        f"0 {x} {y} 0.2 0.2 " + " ".join(f"{x + dx:.3f} {y + dy:.3f}{visible}" for dx, dy in OFFSETS)
        for x, y in CENTRES
    ]
    rows[1] = rows[1].replace(f"0.410 0.410{visible}", f"0 0{visible.replace('1', '0')}")  # one that is not labelled
    shape = [4, 2 + len(visible.split())]
    _, problems, _ = read(yolo(tmp_path, "\n".join(rows)))
    what = "data.yaml has no kpt_shape, but the rows of train are boxes with 4 keypoints each, and no outlines"
    assert f"{what}; add kpt_shape: {shape} to data.yaml" in problems
    record, problems, _ = read(yolo(tmp_path, "\n".join(rows), f"kpt_shape: {shape}\n"))
    assert (problems, record.segmentations) == ("", (None,) * 4)


@pytest.mark.parametrize("corners", [6, 7, 16])
@pytest.mark.parametrize("radius", [0.02, 0.18])
def test_outlines_of_as_many_points_are_outlines(tmp_path: Path, corners: int, radius: float) -> None:
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    circle = radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    rows = ["0 " + " ".join(f"{value:.3f}" for value in (circle + centre).ravel()) for centre in CENTRES]
    record, problems, _ = read(yolo(tmp_path, "\n".join(rows)))
    assert (problems, len(record.labels)) == ("", 4)


def test_lines_that_repeat_and_corners_in_yolo(tmp_path: Path) -> None:
    record, problems, notes = read(yolo(tmp_path, "0 0.5 0.5 0.2 0.2\n" * 2))
    assert (len(record.labels), problems) == (1, "")
    assert "a.txt line 2 is the same as line 1; the object is left out" in notes
    _, problems, _ = read(yolo(tmp_path, "0 0.1 0.2 0.6 0.9\n1 0.5 0.5 0.9 0.8\n"))
    assert "has boxes that fit their images only as class x1 y1 x2 y2; write class cx cy width height" in problems
    assert "a.txt" in problems.split(" has boxes")[0]
    assert "labels/train has no objects to learn from; annotate some images" in read(yolo(tmp_path, ""))[1]


def test_oriented_boxes_are_noted(tmp_path: Path) -> None:
    turned = "0 0.5 0.2 0.7 0.4 0.6 0.5 0.4 0.3\n"
    record, problems, notes = read(yolo(tmp_path, turned + "1 0.1 0.1 0.3 0.1 0.3 0.2 0.1 0.2\n"))
    assert problems == ""
    np.testing.assert_allclose(record.boxes_xyxy[0], [40, 20, 70, 50], atol=1e-4)
    assert "has oriented boxes: the upright box around each is used" in notes
    assert "oriented" not in read(yolo(tmp_path, turned + "1 0.1 0.1 0.3 0.1 0.35 0.2 0.1 0.3\n"))[2]


def voc(root: Path, difficult: str = "0", size: str = "30 20", boxes: str = "3 4 12 8") -> Path:
    objects = ""
    for box in boxes.split(","):
        corners = zip(("xmin", "ymin", "xmax", "ymax"), box.split(), strict=True)
        bndbox = "".join(f"<{name}>{value}</{name}>" for name, value in corners)
        mark = f"<difficult>{difficult}</difficult>" if difficult != "none" else ""
        objects += f"<object><name>boat</name>{mark}<bndbox>{bndbox}</bndbox></object>"
    width, height = size.split()
    text = f"<annotation><size><width>{width}</width><height>{height}</height></size>{objects}</annotation>"
    for split in ("train", "val"):
        (root / split).mkdir(exist_ok=True)
        Image.new("RGB", (30, 20)).save(root / split / f"{split}.png")
        (root / split / f"{split}.xml").write_text(text)
    return root


@pytest.mark.parametrize(
    ("mark", "ignored"),
    [
        ("0", False),
        ("1", True),
        ("none", False),
        ("", False),
        ("true", True),
        ("False", False),
        (" 1 ", True),
        ("yes", True),
        ("No", False),
    ],
)
def test_difficult_however_it_is_written(tmp_path: Path, mark: str, ignored: bool) -> None:
    assert read(voc(tmp_path, mark))[0].crowd.tolist() == [ignored]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"difficult": "hard"}, "train.xml object 1 (boat) has difficult 'hard'; write 0 or 1"),
        ({"size": "wide 20"}, "train.xml has the size 'wide' x '20' (width x height); write the width"),
        ({"size": f"{'9' * 5000} 20"}, "train.xml has the size '9999"),
        ({"size": "-30 20"}, "train.xml has the size '-30' x '20'"),
        ({"boxes": "3 4 1e400 8"}, "which is not a box"),
        ({"boxes": "0.1 0.1 0.5 0.4"}, "has no box beyond the first pixel of an image"),
        ({"boxes": "20 4 9 8,12 12 6 6"}, "fit their images only as xmin, ymin, width, height; write xmin, ymin, xmax"),
    ],
)
def test_what_has_no_meaning_in_voc(tmp_path: Path, fields: dict[str, str], message: str) -> None:
    assert message in "\n".join(read(voc(tmp_path, **fields))[1:])


@pytest.mark.parametrize("size", ["30.0 20", "0 0"])
def test_sizes_and_boxes_as_tools_write_them(tmp_path: Path, size: str) -> None:
    record, problems, _notes = read(voc(tmp_path, size=size, boxes="3.0 4.5 12.25 8"))
    assert problems == ""
    assert record.size == (20, 30)
    assert record.boxes_xyxy.tolist() == [[2, 3.5, 12.25, 8]]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("&a [*a]", "data.yaml has a value that is part of itself; correct it"),
        ("[" * 3000, "data.yaml is not YAML that can be read (it is nested too deeply)"),
        ("[!!binary aGVsbG8=, b]", "data.yaml is not YAML (could not determine a constructor"),
        ("[boat, buoy]\nnc: 0x" + "f" * 9000, "data.yaml has a number of 9002 characters"),
        ("[boat, buoy]\nnc: .inf", "data.yaml says nc: inf, but has 2 names; correct one of the two"),
        ("[boat, [a, [b]]]", "data.yaml has the class name ['a', ['b']]; write it as text in quotation marks"),
        ("{0: boat, 1.5: buoy}", "data.yaml has names for the classes 0, 1.5; number them 0, 1, 2"),
    ],
)
def test_hostile_descriptions(tmp_path: Path, names: str, message: str) -> None:
    root = yolo(tmp_path, "0 0.5 0.5 0.2 0.2\n")
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames: {names}\n")
    _, problems, _ = read(root)
    assert message in problems
    assert len(problems.splitlines()) == 1


def test_dates_are_names(tmp_path: Path) -> None:
    root = yolo(tmp_path, "0 0.5 0.5 0.2 0.2\n")
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [2024-01-01, 2024-13-45]\n")
    findings = Findings()
    assert format_of(root, DetectionDataset).read(root, findings).classes == ("2024-01-01", "2024-13-45")
    assert not findings.problems


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("9" * 5000 + " 0.5 0.5 0.2 0.2", "which is not a finite number; correct or remove the line"),
        ("0 1e400 0.5 0.2 0.2", "line 1 has '1e400', which is not a finite number"),
        ("0 " + "x" * 5000 + " 0.5 0.2 0.2", "which is not a number; correct or remove the line"),
        ("0 0.5 0.5 0.2 nan", "line 1 has 'nan', which is not a finite number"),
        ("1e30 0.5 0.5 0.2 0.2", "line 1 has the class 1000000000000000019884624838656, the names go"),
        ("0 0.5 0.5 -0.2 0.2", "line 1 has the value -0.2, outside 0 to 1"),
    ],
)
def test_hostile_lines(tmp_path: Path, row: str, message: str) -> None:
    _, problems, _ = read(yolo(tmp_path, f"{row}\n1 0.5 0.5 0.2 0.2\n"))
    lines = problems.splitlines()
    assert len(lines) == 2  # one for each split
    assert message in lines[0]
    assert len(lines[0]) < 400
