import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as reference_api

from cyclemlp.data.formats.coco import is_coco_dataset, read_coco
from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.objects import DetectionDataset, as_coco, masks_of
from cyclemlp.data.outlines import box_of, draw_patch, parse_outline, whole_mask
from cyclemlp.data.problems import Findings
from cyclemlp.errors import DataError

WriteCoco = Callable[..., Path]
TRIANGLE = [4.0, 2.0, 25.5, 3.0, 12.0, 17.5]


def annotation(number: int, bbox: list[float], **fields: Any) -> dict[str, Any]:
    return {"id": number, "image_id": 1, "category_id": 7, "bbox": bbox, "iscrowd": 0} | fields


def read(root: Path) -> Findings:
    findings = Findings()
    read_coco(root, findings)
    return findings


def problems_of(root: Path) -> str:
    return "\n".join(map(str, read(root).problems))


def change(root: Path, split: str, **parts: Any) -> None:
    path = root / f"{split}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | parts))


def test_boxes_labels_and_ids(tmp_path: Path, write_coco: WriteCoco) -> None:
    objects = [annotation(1, [2, 3, 10, 5]), annotation(2, [0, 0, 4, 4], category_id=3, iscrowd=1, area=9.5)]
    dataset = find_dataset(write_coco(objects), DetectionDataset)
    assert dataset.classes == ("buoy", "boat")
    assert dataset.category_ids == (3, 7)
    split = dataset.splits["train"]
    assert split.images == (tmp_path / "train/a.png",)
    assert split.annotations == tmp_path / "train.json"
    record = split.records[0]
    assert record.size == (20, 30)
    assert record.boxes_xyxy.tolist() == [[2, 3, 12, 8], [0, 0, 4, 4]]
    assert record.boxes_xyxy.dtype == np.float32
    assert record.labels.tolist() == [1, 0]
    assert record.crowd.tolist() == [False, True]
    assert record.areas.tolist() == [50, 9.5]
    assert not dataset.has_masks


SQUARE = [2.0, 2.0, 18.0, 2.0, 18.0, 18.0, 2.0, 18.0]


@pytest.mark.parametrize(
    ("rings", "noted"),
    [
        ([SQUARE, [6, 6, 14, 6, 14, 14, 6, 14]], True),
        ([SQUARE, [6, 6, 24, 6, 24, 14, 6, 14]], False),
        ([[2, 2, 18, 2, 18, 4, 4, 4, 4, 18, 2, 18], [6, 6, 14, 6, 14, 14, 6, 14]], False),  # in the corner of an L
        ([SQUARE], False),
    ],
)
def test_polygons_that_look_like_holes_are_noted(write_coco: WriteCoco, rings: list[list[float]], noted: bool) -> None:
    left, top, right, bottom = box_of(parse_outline(rings, (20, 30)), (20, 30))  # type: ignore[arg-type]
    bbox = [left, top, right - left, bottom - top]
    found = read(write_coco([annotation(1, bbox, segmentation=rings)]))
    assert not found.problems
    what = (
        "has 1 objects with an outline inside another of theirs, which does not make a hole; write objects with holes"
    )
    assert noted == any(what in str(note) for note in found.notes)


@pytest.mark.parametrize("noted", [{}, {"area": 0}, {"area": None}])
def test_an_area_that_is_not_annotated_is_that_of_the_outline(write_coco: WriteCoco, noted: dict[str, Any]) -> None:
    run = {"size": [20, 30], "counts": [42, 7, 551]}
    objects = [
        annotation(1, [4, 2, 10, 7], segmentation=[[4, 2, 14, 2, 14, 9]]) | noted,
        annotation(2, [2, 2, 1, 7], segmentation=run) | noted,
        annotation(3, [4, 2, 10, 7]) | noted,
        annotation(4, [4, 2, 10, 8], area=9.5),
    ]
    record = find_dataset(write_coco(objects), DetectionDataset).splits["train"].records[0]
    assert record.areas.tolist() == [35, 7, 70, 9.5]


def test_the_layout_of_the_archives(write_coco: WriteCoco) -> None:
    root = write_coco([annotation(1, [2, 3, 10, 5])])
    (root / "annotations").mkdir()
    for split in ("train", "val"):
        (root / split).rename(root / f"{split}2017")
        (root / f"{split}.json").rename(root / f"annotations/instances_{split}2017.json")
    dataset = find_dataset(root, DetectionDataset)
    assert list(dataset.splits) == ["train", "val"]
    assert dataset.splits["val"].images == (root / "val2017/a.png",)


def test_annotations_in_the_folders_of_the_images(write_coco: WriteCoco) -> None:
    root = write_coco([annotation(1, [2, 3, 10, 5])])
    (root / "val").rename(root / "valid")
    for split, folder in (("train", "train"), ("val", "valid")):
        (root / f"{split}.json").rename(root / folder / "_annotations.coco.json")
    dataset = find_dataset(root, DetectionDataset)
    assert list(dataset.splits) == ["train", "val"]
    assert dataset.splits["val"].images == (root / "valid/a.png",)
    assert dataset.splits["train"].annotations == root / "train/_annotations.coco.json"


def test_boxes_are_cut_to_the_image_and_flat_ones_left_out(
    caplog: pytest.LogCaptureFixture, write_coco: WriteCoco
) -> None:
    objects = [
        annotation(1, [-5, 3, 10, 50]),
        annotation(2, [2, 3, 0, 5]),
        annotation(3, [40, 3, 4, 4]),
        annotation(4, [0, 0, 30.4, 20]),  # rounded, which is not reported
    ]
    root = write_coco(objects)
    with caplog.at_level(logging.WARNING):
        record = find_dataset(root, DetectionDataset).splits["train"].records[0]
    assert record.boxes_xyxy.tolist() == [[0, 3, 5, 20], [0, 0, 30, 20]]
    assert f"6 boxes are cut to the image or left out (cyclemlp data {root} lists them)" in caplog.text
    flaws = [str(flaw) for flaw in read(root).flaws if flaw.split == "train"]
    path = root / "train.json"
    assert flaws == [
        f"{path} annotation 1 has the box (-5, 3, 5, 53), partly outside the image of 30x20;"
        " the box is cut to the image; correct or remove it",
        f"{path} annotation 2 has the box (2, 3, 2, 8) without area; the object is left out; correct or remove it",
        f"{path} annotation 3 has the box (40, 3, 44, 7) outside the image of 30x20;"
        " the object is left out; correct or remove it",
    ]


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools with numpy 2
@pytest.mark.parametrize("rings", [[TRIANGLE], [TRIANGLE, [1.0, 1.0, 3.0, 1.0, 3.0, 5.0]], [[-4.0, -3, 40, 2, 9, 33]]])
def test_polygons_are_drawn_as_pycocotools_draws_them(rings: list[list[float]]) -> None:
    expected = reference_api.decode(reference_api.merge(reference_api.frPyObjects(rings, 20, 30)))
    outline = parse_outline(rings, (20, 30))
    assert np.array_equal(whole_mask(outline, (20, 30)), expected)


@pytest.mark.parametrize("fill", ["some", "none", "all", "corner"])
def test_rle_is_decoded_as_pycocotools_does(fill: str) -> None:
    mask = np.zeros((20, 30), np.uint8)
    if fill == "some":
        mask[3:9, 4:7] = mask[15:18, 5:20] = 1
    if fill == "all":
        mask[:] = 1
    if fill == "corner":
        mask[-1, -1] = 1
    encoded = reference_api.encode(np.asfortranarray(mask))
    outline = parse_outline({"size": [20, 30], "counts": encoded["counts"].decode()}, (20, 30))
    assert outline is not None
    assert np.array_equal(whole_mask(outline, (20, 30)), mask)
    left, top, width, height = reference_api.toBbox(encoded).tolist()
    assert box_of(outline, (20, 30)) == (left, top, left + width, top + height)


def test_uncompressed_rle(write_coco: WriteCoco) -> None:
    runs = {"size": [20, 30], "counts": [20, 3, 577]}
    root = write_coco([annotation(1, [1, 0, 1, 3], segmentation=runs), annotation(2, [0, 0, 5, 5])])
    masks = masks_of(find_dataset(root, DetectionDataset).splits["val"].records[0])
    assert masks.shape == (2, 20, 30)
    assert masks[0, :3, 1].tolist() == [1, 1, 1]
    assert masks.sum() == 3


def test_a_small_object_is_drawn_in_a_small_frame() -> None:
    outline = parse_outline([[2000.0, 1000, 2010, 1000, 2005, 1010]], (3000, 4000))
    assert outline is not None
    assert max(draw_patch(outline, (3000, 4000)).bitmap.shape) <= 14


def test_masks_need_an_outline_for_every_object(write_coco: WriteCoco) -> None:
    root = write_coco([annotation(1, [4, 2, 21, 15], segmentation=[TRIANGLE])])
    assert find_dataset(root, DetectionDataset).has_masks
    change(root, "val", annotations=[])
    assert masks_of(find_dataset(root, DetectionDataset).splits["val"].records[0]).shape == (0, 20, 30)


def test_the_evaluator_gets_what_was_read(tmp_path: Path, write_coco: WriteCoco) -> None:
    crowd, plain = annotation(0, [2, 3, 20, 12], segmentation=[TRIANGLE], iscrowd=1), annotation(3, [2, 3, 10, 5])
    given = as_coco(find_dataset(write_coco([crowd, plain]), DetectionDataset), "val")
    assert given["annotations"] == [crowd | {"id": 1, "area": 162.625}, plain | {"id": 2, "area": 50.0}]
    assert given["images"] == [{"id": 1, "file_name": "a.png", "width": 30, "height": 20}]
    assert given["categories"] == [{"id": 3, "name": "buoy"}, {"id": 7, "name": "boat"}]
    write_coco(given["annotations"], root=tmp_path / "again", categories=given["categories"])
    assert as_coco(find_dataset(tmp_path / "again", DetectionDataset), "val") == given


def test_other_folders_are_refused(tmp_path: Path) -> None:
    assert not is_coco_dataset(tmp_path)
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match=r"is not a data set with boxes; expected COCO, PASCAL VOC or YOLO \(cycle"):
        find_dataset(tmp_path, DetectionDataset)
    with pytest.raises(DataError, match=r"none is missing; give a folder with COCO"):
        find_dataset(tmp_path / "none", DetectionDataset)


def test_broken_files(write_coco: WriteCoco) -> None:
    root = write_coco([])
    (root / "train.json").write_text("{")
    (root / "val.json").write_text('{"images": [], "annotations": 3}')
    with pytest.raises(DataError, match=r"train.json is not JSON \(.*\); replace it \(and 1 more: cyclemlp data"):
        find_dataset(root, DetectionDataset)
    assert 'val.json has no list "annotations" of objects; COCO annotations are one JSON object' in problems_of(root)


def test_missing_parts(write_coco: WriteCoco) -> None:
    root = write_coco([])
    (root / "train/a.png").unlink()
    (root / "val.json").unlink()
    assert "train/a.png is listed but missing; add the image or remove its entry" in problems_of(root)
    assert "val.json is missing; give --val-share 0.2 to validate on a fifth of the training images" in problems_of(
        root
    )
    (root / "train").rename(root / "photos")
    assert f"{root / 'train'} is missing; put the images of the train split there" in problems_of(root)


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ([annotation(1, [0, 0, 5])], "annotation 1 has the bbox [0, 0, 5]; write [left, top, width, height]"),
        (
            [annotation(1, [0, 0, 5, 5], category_id=9)],
            "is of category 9, which is not listed; correct it to one of 3, 7",
        ),
        (
            [annotation(1, [0, 0, 5, 5], image_id=[2])],
            "belongs to the image id [2], which is not listed; correct it or",
        ),
        (
            [annotation(5, [0, 0, 5, 5])] * 2,
            "has the annotation id 5 2 times; give each annotation a number of its own",
        ),
        (
            [annotation(1, [0, 0, 5, 5], segmentation=[[1, 2]])],
            "with a polygon that is not a list of three or more pairs",
        ),
        ([annotation(1, [0, 0, 5, 5], segmentation=[["x"]])], "with a polygon that is not a list of numbers"),
        ([annotation(1, [0, 0, 5, 5], segmentation=3)], "that is neither a list of polygons nor an RLE; correct"),
        ([annotation(1, [0, 0, 5, 5], segmentation={"size": [3, 4]})], "of size [3, 4], but its image is [20, 30]"),
        ([annotation(1, [0, 0, 5, 5], segmentation={"size": [20, 30]})], "without an RLE (counts)"),
        ([annotation(1, [0, 0, 5, 5], segmentation={"size": [20, 30], "counts": [5]})], "whose RLE does not add up to"),
        ([annotation(1, [0, 0, 5, 5], segmentation={"size": [20, 30], "counts": "1"})], "whose RLE does not add up to"),
        ([annotation(1, [0, 0, 5, 5], segmentation={"size": [20, 30], "counts": "o"})], "whose RLE cannot be read"),
    ],
)
def test_wrong_annotations(objects: list[dict[str, Any]], message: str, write_coco: WriteCoco) -> None:
    assert message in problems_of(write_coco(objects))


def test_wrong_images(write_coco: WriteCoco) -> None:
    root = write_coco([])
    image = {"id": 1, "file_name": "a.png"}
    change(root, "train", images=[image, image, {"id": "x"}])
    change(root, "val", images=[])
    found = problems_of(root)
    assert "train.json has the image id 1 more than once; keep one of them" in found
    assert "train.json has the image file name a.png more than once; keep one of them" in found
    assert """has the image {'id': 'x'}; give it a whole number "id" and a text "file_name\"""" in found
    assert "val.json lists no images; add them, or use another split" in found


@pytest.mark.parametrize("name", ["more\\a.png", "train\\more\\a.png", "train/more/a.png"])
def test_names_with_back_slashes_and_with_the_folder_of_the_split(write_coco: WriteCoco, name: str) -> None:
    root = write_coco([annotation(1, [2, 3, 10, 5])])
    (root / "train/more").mkdir()
    (root / "train/a.png").rename(root / "train/more/a.png")
    change(root, "train", images=[{"id": 1, "file_name": name}])
    assert find_dataset(root, DetectionDataset).splits["train"].images == (root / "train/more/a.png",)


def test_an_image_under_two_names(write_coco: WriteCoco) -> None:
    root = write_coco([annotation(1, [2, 3, 10, 5])])
    change(root, "train", images=[{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "a.PNG"}])
    message = "train.json lists 'a.png' and 'a.PNG', which are one image; keep one, with all its objects"
    assert message in problems_of(root)


def test_a_second_annotation_file_is_noted(write_coco: WriteCoco) -> None:
    root = write_coco([annotation(1, [2, 2, 9, 9])])
    assert not any("is not read" in str(note) for note in read(root).notes)
    (root / "annotations").mkdir()
    shutil.copy(root / "train.json", root / "annotations/instances_train2017.json")
    note = f"instances_train2017.json is not read: the annotations of train are {root / 'train.json'}; remove the file"
    assert note in "\n".join(map(str, read(root).notes))


def test_a_size_that_is_not_listed_is_read_from_the_image(write_coco: WriteCoco) -> None:
    root = write_coco([annotation(1, [2, 3, 10, 5])], images=[{"id": 1, "file_name": "a.png"}])
    assert find_dataset(root, DetectionDataset).splits["train"].records[0].size == (20, 30)
    (root / "train/a.png").write_bytes(b"not an image")
    assert "train/a.png is not an image in a known format" in problems_of(root)


def test_wrong_categories(write_coco: WriteCoco) -> None:
    root = write_coco([])
    change(
        root, "train", categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}, {"id": 2, "name": "a"}, {"id": 3}]
    )
    change(root, "val", categories=[{"id": 1, "name": "b"}])
    found = problems_of(root)
    assert "has the category id 1 more than once; give each category a number of its own" in found
    assert "has the category name 'a' more than once; give each category a name of its own" in found
    assert """has the category {'id': 3}; give it a whole number "id" and a text "name\"""" in found
    assert "val.json calls category 1 'b', the training annotations 'a'; use the same categories in all files" in found
