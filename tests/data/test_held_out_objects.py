"""Validation by place for boxes, masks of objects and class folders, and the options for blocks and margin."""

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import command
from geotiffs import write_geotiff

import cyclemlp
from cyclemlp.data.check_cache import state_of
from cyclemlp.data.common_ground import Footprint
from cyclemlp.data.datasets import ClassifiedDataset
from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.ground_blocks import Blocks, GroundPart
from cyclemlp.data.held_out import HoldOut, ValidationOptions
from cyclemlp.data.held_out_ground import counts_on_its_ground, on_its_ground, whole_image_edge
from cyclemlp.data.inspect import inspect_dataset
from cyclemlp.data.masks import MaskDataset
from cyclemlp.data.objects import ANY_CLASS, DetectionDataset, DetectionSplit, Record
from cyclemlp.data.problems import DataRequest
from cyclemlp.errors import ConfigError, DataError
from cyclemlp.tasks.card import ModelCard
from cyclemlp.tasks.detection.decoding import Detections
from cyclemlp.tasks.detection.predict import DetectionResult
from cyclemlp.tasks.detection.task import DetectionTask

pytest.importorskip("rasterio", reason="rasterio is not installed")
EAST, NORTH = 500_000.0, 5_400_000.0
EDGE = 60
"""Pixels of an image, each of 10 metres."""


def held_out(share: float = 0.2, **more: float) -> DataRequest:
    return DataRequest(hold_out=HoldOut(share, **more))  # type: ignore[arg-type]


def write_image(path: Path, origin: tuple[float, float] = (EAST, NORTH), value: int = 90) -> Path:
    pixels = np.full((EDGE, EDGE, 3), value, np.uint8)
    pixels[::3] += np.arange(EDGE, dtype=np.uint8)[:, None]
    return write_geotiff(path, pixels, origin=origin)


def write_yolo(root: Path, origins: list[tuple[float, float]]) -> Path:
    """Images with a box of 4 pixels at every tenth pixel."""
    for number, origin in enumerate(origins):
        write_image(root / f"images/train/{number}.tif", origin, 60 + number)
        places = [(x + 5.5) / EDGE for x in range(0, EDGE, 10)]
        lines = [f"0 {x:.6f} {y:.6f} {4 / EDGE:.6f} {4 / EDGE:.6f}" for y in places for x in places]
        labels = root / f"labels/train/{number}.txt"
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.write_text("\n".join(lines))
    (root / "classes.txt").write_text("tree\n")
    return root


def write_coco(root: Path) -> Path:
    """One image, with outlines."""
    write_image(root / "train/a.tif")
    corners = [(x + 3, y + 3) for y in range(0, EDGE, 10) for x in range(0, EDGE, 10)]
    annotations = [
        {
            **{"id": i, "image_id": 1, "category_id": 1, "bbox": [x, y, 4, 4], "area": 16, "iscrowd": 0},
            "segmentation": [[x, y, x + 4, y, x + 4, y + 4, x, y + 4]],
        }
        for i, (x, y) in enumerate(corners, start=1)
    ]
    content = {"images": [{"id": 1, "file_name": "a.tif", "height": EDGE, "width": EDGE}]}
    content |= {"annotations": annotations, "categories": [{"id": 1, "name": "tree"}]}
    (root / "train.json").write_text(json.dumps(content))
    return root


def write_classes(root: Path, columns: int = 20, rows: int = 10) -> Path:
    """Tiles side by side, of two classes."""
    for row in range(rows):
        for column in range(columns):
            place = EAST + column * EDGE * 10, NORTH - row * EDGE * 10
            name = ("field", "wood")[(row + column) % 2]
            write_image(root / name / f"{row}-{column}.tif", place, 50 + row * 7 + column % 7)
    return root


def ignored_by(record: Record) -> np.ndarray:
    """(H, W) how many regions ignore objects of every class in each pixel, whose edges are whole pixels here."""
    count = np.zeros(record.size, int)
    for left, top, right, bottom in record.boxes_xyxy[record.labels == ANY_CLASS].round().astype(int):
        count[top:bottom, left:right] += 1
    return count


@pytest.mark.parametrize("kind", ["yolo", "coco"])
def test_the_objects_of_one_image_are_divided_as_pixels_are(kind: str, tmp_path: Path) -> None:
    """Regions to ignore cover exactly the pixels that segmentation ignores, each once where it validates."""
    write_yolo(tmp_path, [(EAST, NORTH)]) if kind == "yolo" else write_coco(tmp_path)
    splits = find_dataset(tmp_path, DetectionDataset, held_out()).splits
    assert [len(split.images) for split in splits.values()] == [1, 1]
    learnt = {}
    for name, split in splits.items():
        part, record = split.part, split.records[0]
        assert part is not None
        kept = part.kept(split.images[0], slice(0, EDGE), slice(0, EDGE))
        assert np.array_equal(ignored_by(record) == 0, kept)
        assert name == "train" or ignored_by(record).max() == 1
        middles = ((record.boxes_xyxy[:, :2] + record.boxes_xyxy[:, 2:]) / 2).astype(int)
        own = record.labels != ANY_CLASS
        assert own.sum() == 36
        assert np.array_equal(~record.crowd[own], kept[middles[own, 1], middles[own, 0]])
        learnt[name] = {tuple(box) for box in record.boxes_xyxy[~record.crowd].tolist()}
        assert split.annotations is None
        assert record.has_masks == (kind == "coco")
    assert not learnt["train"] & learnt["val"]
    assert 3 <= len(learnt["val"]) <= 15
    assert len(learnt["train"]) >= 15


def test_a_turned_image_is_divided_at_its_own_blocks(tmp_path: Path) -> None:
    """The image lies at an angle: a region is the rectangle around a block, and no label is in both splits."""
    import rasterio

    root = write_yolo(tmp_path, [(EAST, NORTH)])
    with rasterio.open(root / "images/train/0.tif", "r+") as target:
        target.transform = rasterio.Affine(8.66, 5, EAST, 5, -8.66, NORTH)
    splits = find_dataset(root, DetectionDataset, held_out()).splits
    boxes = [{tuple(b) for b in s.records[0].boxes_xyxy[~s.records[0].crowd].tolist()} for s in splits.values()]
    assert all(boxes)
    assert not boxes[0] & boxes[1]


def test_far_images_are_in_one_split_each(tmp_path: Path) -> None:
    root = write_yolo(tmp_path, [(EAST + 50_000 * i, NORTH + 3_000 * (i % 2)) for i in range(10)])
    splits = find_dataset(root, DetectionDataset, held_out()).splits
    assert len(splits["val"].images) in (2, 3)
    assert not set(splits["train"].images) & set(splits["val"].images)


def test_a_record_without_objects_keeps_its_regions(tmp_path: Path) -> None:
    root = write_yolo(tmp_path, [(EAST, NORTH)])
    part = find_dataset(root, DetectionDataset, held_out()).splits["val"].part
    assert part is not None
    nothing = Record(
        1, (EDGE, EDGE), np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool), np.zeros(0), ()
    )
    found = on_its_ground(nothing, root / "images/train/0.tif", part)
    assert found.crowd.all()
    assert len(found.labels) == len(found.segmentations) == len(found.areas) > 0


def test_tiles_of_classes_are_held_out_by_place_with_a_margin(tmp_path: Path) -> None:
    dataset = find_dataset(write_classes(tmp_path), ClassifiedDataset, held_out())
    train, val = dataset.splits["train"], dataset.splits["val"]
    assert 20 <= len(val.images) <= 60
    assert len(train.images) > 80
    assert set(train.labels) == set(val.labels) == {0, 1}

    def place(path: Path) -> np.ndarray:
        return np.array([int(number) for number in path.stem.split("-")])

    for path in val.images:  # no tile of train adjoins one of val, not even at a corner
        assert min(np.abs(place(path) - place(other)).max() for other in train.images) >= 2
    assert dataset.splits["val"].read(0)[1] == val.labels[0]


def test_class_folders_of_no_place_hold_out_the_share_of_each_class(tmp_path: Path) -> None:
    for name, count in (("field", 20), ("wood", 10), ("lake", 1)):
        for number in range(count):
            path = tmp_path / name / f"{number}.npy"
            path.parent.mkdir(exist_ok=True)
            np.save(path, np.full((8, 8), number, np.uint8))
    dataset = find_dataset(tmp_path, ClassifiedDataset, held_out(0.3))
    counts = {name: np.bincount(split.labels, minlength=3).tolist() for name, split in dataset.splits.items()}
    assert counts == {"train": [14, 1, 7], "val": [6, 0, 3]}
    assert dataset.classes == ("field", "lake", "wood")
    other = find_dataset(tmp_path, ClassifiedDataset, held_out(0.3, seed=1))
    assert other.splits["val"].images != dataset.splits["val"].images


def test_block_and_margin_are_options(tmp_path: Path) -> None:
    """Blocks of 200 metres and 30 metres around them, in pixels of 10 metres; each pixel by hand."""
    root = write_yolo(tmp_path, [(EAST, NORTH)])
    train = find_dataset(root, DetectionDataset, held_out(0.2, block=200.0, margin=30.0)).splits["train"]
    assert train.part is not None
    blocks = train.part.blocks
    assert blocks.edge == 200.0
    kept = train.part.kept(train.images[0], slice(0, EDGE), slice(0, EDGE))
    centres_x, centres_y = EAST + 10 * (np.arange(EDGE) + 0.5), NORTH - 10 * (np.arange(EDGE) + 0.5)
    away = [
        np.maximum(*np.meshgrid(abs(centres_x - (b[0] + 0.5) * 200), abs(centres_y - (b[1] + 0.5) * 200)))
        for b in blocks.held_out
    ]
    assert np.array_equal(kept, np.min(away, axis=0) >= 100 + 30)


def test_a_margin_wider_than_a_block_skips_no_block(tmp_path: Path) -> None:
    root = write_yolo(tmp_path, [(EAST, NORTH)])
    train = find_dataset(root, DetectionDataset, held_out(0.05, block=50.0, margin=120.0)).splits["train"]
    assert train.part is not None
    kept = train.part.kept(train.images[0], slice(0, EDGE), slice(0, EDGE))
    x, y = np.meshgrid(EAST + 10 * (np.arange(EDGE) + 0.5), NORTH - 10 * (np.arange(EDGE) + 0.5))
    far = [np.maximum(abs(x - (b[0] + 0.5) * 50), abs(y - (b[1] + 0.5) * 50)) for b in train.part.blocks.held_out]
    assert np.array_equal(kept, np.min(far, axis=0) >= 25 + 120)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_block": 100.0}, "--val-block 100 is about blocks that are held out: give --val-share as well"),
        ({"val_margin": 0.0}, "--val-margin 0 is about blocks that are held out: give --val-share as well"),
        ({"val_share": 0.2, "val_block": 0.0}, "--val-block 0.0 is not allowed: more than 0"),
        ({"val_share": 0.2, "val_margin": -1.0}, "--val-margin -1.0 is not allowed: 0 or more"),
        ({"val_share": 1.0}, "--val-share 1 is not allowed"),
    ],
)
def test_options_that_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ValidationOptions(**options)


@pytest.mark.parametrize(
    ("size", "what"),
    [
        ({"block": 1e7}, "all images lie in one block"),
        ({"block": 100.0, "margin": 900.0}, "near a held-out one"),
        ({"block": 100.0, "margin": 1e6}, "--val-margin 1e\\+06 is more than 100 blocks of 100"),
        ({"margin": 1e7}, "--val-margin 1e\\+07 is more than 100 blocks of 100"),
    ],
)
def test_blocks_that_leave_nothing_to_train_are_refused(size: dict[str, float], what: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=what):
        find_dataset(write_yolo(tmp_path, [(EAST, NORTH)]), DetectionDataset, held_out(0.2, **size))


def test_blocks_of_images_that_lie_nowhere_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_yolo(tmp_path / "d", [(EAST, NORTH)] * 3)
    for number in range(3):
        write_geotiff(root / f"images/train/{number}.tif", np.eye(EDGE, dtype=np.uint8) * 9, crs=None, step=1.0)
        (root / f"images/train/{number}.tif").unlink()
        np.save(root / f"images/train/{number}.npy", np.eye(EDGE, dtype=np.uint8) * 9)
    assert command("data", root, "--val-share", 0.3, "--val-block", 100) == 2
    error = capsys.readouterr().err
    assert "3 of 3 images do not say where they lie, such as 0.npy: leave --val-block out" in error
    assert find_dataset(root, DetectionDataset, held_out(0.3)).splits["val"].part is None


def test_the_command_shows_the_split_that_training_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_yolo(tmp_path, [(EAST + 50_000 * i, NORTH + 3_000 * (i % 2)) for i in range(10)])
    shown = {}
    for seed in (0, 1):
        options = ("--val-share", 0.2, "--val-block", 1000, "--val-margin", 50, "--seed", seed, "--json")
        assert command("data", root, *options) == 0
        report = json.loads(capsys.readouterr().out)
        assert f"blocks of the ground (edge 100 pixels) and seed {seed}" in report["read_as"]["splits"]
        request = held_out(0.2, seed=seed, block=1000.0, margin=50.0)
        splits = find_dataset(root, DetectionDataset, request).splits
        for name in ("train", "val"):
            assert report["splits"][name]["images"] == len(splits[name].images)
            counted = sum(int((~record.crowd).sum()) for record in splits[name].records)
            assert report["splits"][name]["class_objects"] == {"tree": counted}
        shown[seed] = splits["val"].images
        assert not report["notes"]
    assert shown[0] != shown[1]


@pytest.mark.parametrize("kind", ["boxes", "classes"])
def test_splits_that_adjoin_are_named_for_boxes_and_classes(kind: str, tmp_path: Path) -> None:
    """By the same check as for masks: an image of val lies next to one of train, or does not."""
    for away, found in ((EDGE * 10, True), (EDGE * 10 + 100, False)):
        root = tmp_path / str(away)
        if kind == "boxes":
            write_yolo(root, [(EAST, NORTH)])
            write_image(root / "images/val/1.tif", (EAST + away, NORTH), 20)
            (root / "labels/val").mkdir()
            (root / "labels/val/1.txt").write_text("0 0.5 0.5 0.1 0.1")
        else:
            for place, name in enumerate(("field", "wood")):
                write_image(root / f"train/{name}/a.tif", (EAST, NORTH - 9_000 * place), 30 + place)
                write_image(root / f"val/{name}/b.tif", (EAST + away, NORTH - 9_000 * place), 70 + place)
        notes = [note.what for note in inspect_dataset(root).notes]
        assert any("adjoins or overlaps" in what and "of train on the ground" in what for what in notes) == found


QUICK = {"steps": 1, "batch_size": 1, "workers": 0, "device": "cpu", "head_width": 16}


@pytest.mark.usefixtures("one_thread")
def test_a_run_keeps_its_blocks_and_evaluates_on_them(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "trees", [(EAST, NORTH)])
    options = {**QUICK, "val_share": 0.2, "val_block": 200, "val_margin": 30, "seed": 3, "input_scale": 1}
    run = cyclemlp.train("detection", data=root, out=tmp_path / "run", **options)  # type: ignore[arg-type]
    card = json.loads((tmp_path / "run/model.json").read_text())
    assert [card[name] for name in ("val_share", "val_block", "val_margin", "val_seed")] == [0.2, 200, 30, 3]
    scores = cyclemlp.evaluate(run, device="cpu")
    assert scores["metrics"] == {**run.metrics}


@pytest.mark.usefixtures("one_thread")
def test_a_classifier_keeps_its_blocks(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "tiles", 12, 6)
    options = {"steps": 1, "batch_size": 2, "workers": 0, "device": "cpu", "image_size": 32, "val_share": 0.2}
    run = cyclemlp.train("classification", data=root, out=tmp_path / "run", **options)  # type: ignore[arg-type]
    scores = cyclemlp.evaluate(run, device="cpu")
    assert scores["metrics"] == {**run.metrics}
    expected = find_dataset(root, ClassifiedDataset, held_out()).splits["val"]
    assert scores["images"] == len(expected.images)


def test_masks_take_block_and_margin_too(tmp_path: Path) -> None:
    write_image(tmp_path / "images/a.tif")
    write_geotiff(tmp_path / "masks/a.tif", np.eye(EDGE, dtype=np.uint8), origin=(EAST, NORTH))
    splits = find_dataset(tmp_path, MaskDataset, held_out(0.2, block=200.0, margin=0.0)).splits
    train, val = (splits[name].target(0) != 255 for name in ("train", "val"))
    assert (train ^ val).all()


def test_blocks_of_whole_images_hold_four_of_them() -> None:
    places = {Path(str(i)): Footprint((1.0, 0.0, 75.0 * i, 0.0, -1.0, 75.0), (75, 75)) for i in range(4)}
    assert whole_image_edge(places, 0.2) == 300.0


@pytest.mark.parametrize("kind", ["boxes", "classes", "masks"])
def test_what_is_held_out_is_part_of_the_state_of_the_checks(kind: str, tmp_path: Path) -> None:
    if kind == "masks":
        write_image(tmp_path / "images/a.tif")
        write_geotiff(tmp_path / "masks/a.tif", np.eye(EDGE, dtype=np.uint8), origin=(EAST, NORTH))
    else:
        write_yolo(tmp_path, [(EAST, NORTH)]) if kind == "boxes" else write_classes(tmp_path, 12, 6)
    labels: type = {"boxes": DetectionDataset, "classes": ClassifiedDataset, "masks": MaskDataset}[kind]
    block = 1200.0 if kind == "classes" else 100.0
    more: list[dict[str, float]] = [{}, {"seed": 1}, {"share": 0.5}, {"margin": block / 5}, {"block": 1.5 * block}]
    requests = [{"block": block, **each} for each in more]
    states = [state_of(find_dataset(tmp_path, labels, held_out(**each))) for each in requests]
    assert len(set(states)) == len(requests)


def test_a_detection_on_ignored_ground_is_no_mistake(tmp_path: Path) -> None:
    """Blocks of 100 metres: the one in the middle validates, around it are four regions to ignore."""
    size = (300, 300)
    place = Footprint((1.0, 0.0, 0.0, 0.0, -1.0, 300.0), size)
    own, near = [110.0, 110.0, 130.0, 130.0], [85.0, 120.0, 107.0, 140.0]
    record = Record(
        1,
        size,
        np.array([own, near], np.float32),
        np.zeros(2, np.int64),
        np.zeros(2, bool),
        np.full(2, 400.0),
        (None,) * 2,
    )
    image = Path("a.tif")
    part = GroundPart(Blocks(100.0, frozenset({(1, 1)}), ((image, place),), 9, 0.1), validates=True)
    labels = on_its_ground(record, image, part)
    dataset = DetectionDataset(tmp_path, ("tree",), {"val": DetectionSplit((image,), (labels,), part=part)})
    boxes = [own, [20.0, 75.0, 60.0, 125.0], [88.0, 120.0, 108.0, 140.0], [150.0, 150.0, 180.0, 180.0]]
    found = Detections(np.array(boxes, np.float32), np.array([0.5, 0.9, 0.8, 0.4]), np.zeros(4, np.int64))
    task = DetectionTask()
    card = ModelCard(task="detection", model="cyclemlp_nano", head="retinanet", classes=("tree",))
    counts = task.new_counts(card, dataset)
    result = DetectionResult(found, ("tree",), np.zeros((*size, 3), np.uint8))
    task.count(counts, dataset, "val", 0, result)
    assert [each["score"] for each in counts.results] == pytest.approx([0.5, 0.4])
    assert counts.metrics(("tree",))["mAP"] == pytest.approx(1.0)


def test_a_detection_of_an_object_of_the_block_counts_wherever_its_centre_lies() -> None:
    """Of an object whose centre lies just inside, a box is found whose centre lies just outside."""
    image, size = Path("a.tif"), (300, 300)
    place = Footprint((1.0, 0.0, 0.0, 0.0, -1.0, 300.0), size)
    part = GroundPart(Blocks(100.0, frozenset({(1, 1)}), ((image, place),), 9, 0.1), validates=True)
    box = np.array([[91.0, 120.0, 111.0, 140.0]], np.float32)
    record = Record(1, size, box, np.zeros(1, np.int64), np.zeros(1, bool), np.full(1, 400.0), (None,))
    found = np.concatenate([box - [2, 0, 2, 0], box - [60, 0, 60, 0]]).astype(np.float32)
    assert counts_on_its_ground(found, on_its_ground(record, image, part), image, part).tolist() == [True, False]
