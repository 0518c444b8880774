"""Validation by place: which pixels train and which validate, and what is said of splits that lie side by side."""

import json
import logging
import re
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from command_line import command
from geotiffs import write_geotiff

import cyclemlp
from cyclemlp.data import windows
from cyclemlp.data.checks import check_files
from cyclemlp.data.common_ground import Footprint, footprints
from cyclemlp.data.fingerprint import labels_digest
from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.ground_blocks import MARGIN, Blocks, GroundPart, blocks_of
from cyclemlp.data.held_out import HoldOut
from cyclemlp.data.inspect import inspect_dataset
from cyclemlp.data.masks import MaskDataset
from cyclemlp.data.problems import DataRequest

pytest.importorskip("rasterio", reason="rasterio is not installed")
PAGE = Path(__file__).parents[2] / "docs" / "scenes.md"
EAST, NORTH = 500_000.0, 5_400_000.0
SHARE = DataRequest(hold_out=HoldOut(0.2))


def write_pair(
    root: Path, name: str, origin: tuple[float, float] = (EAST, NORTH), edge: int = 60, **more: object
) -> None:
    """An image and its mask of two classes, at a place."""
    mask = (np.add.outer(np.arange(edge), np.arange(edge)) // 7 % 2).astype(np.uint8)
    write_geotiff(root / f"images/{name}.tif", np.repeat(mask[..., None] * 200, 3, axis=2), origin=origin, **more)  # type: ignore[arg-type]
    write_geotiff(root / f"masks/{name}.tif", mask, origin=origin, **more)  # type: ignore[arg-type]


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """One image of 60 x 60 pixels of 10 metres."""
    write_pair(tmp_path / "scene", "a")
    return tmp_path / "scene"


def test_one_scene_is_divided_into_blocks(scene: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    dataset = find_dataset(scene, MaskDataset, SHARE)
    train, val = dataset.splits["train"], dataset.splits["val"]
    assert train.images == val.images
    trains, validates = train.target(0) != 255, val.target(0) != 255
    assert not (trains & validates).any()
    assert 0.1 < validates.mean() < 0.35
    assert (trains.mean() + validates.mean()) > 0.7
    part = val.part
    assert part is not None
    edge = part.blocks.edge
    assert edge == 100.0  # five of them are a fifth of the ground
    for row, column in product(range(60), range(60)):  # by hand, for each pixel
        east, north = EAST + 10 * (column + 0.5), NORTH - 10 * (row + 0.5)
        block = (east // edge, north // edge)
        assert validates[row, column] == (block in part.blocks.held_out)
        away = [max(abs(east - (b[0] + 0.5) * edge), abs(north - (b[1] + 0.5) * edge)) for b in part.blocks.held_out]
        assert trains[row, column] == (min(away) - edge / 2 >= MARGIN * edge)
    assert "blocks of the ground (edge 10 pixels) validate, by a hash of their places and seed 0" in caplog.text
    assert "training ignores 0.1 of an edge around them" in caplog.text
    assert np.array_equal(train.read(0)[1], train.target(0))


def test_the_choice_follows_from_the_seed_and_is_part_of_the_digest(scene: Path) -> None:
    def of_seed(seed: int) -> MaskDataset:
        return find_dataset(scene, MaskDataset, DataRequest(hold_out=HoldOut(0.2, seed)))

    assert of_seed(0).splits == of_seed(0).splits
    digests = [labels_digest(of_seed(seed), ("train", "val")) for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_overlapping_images_agree_on_each_place(tmp_path: Path) -> None:
    """The second is moved by 20 pixels, the third shows the same ground in other coordinates."""
    import rasterio
    from rasterio.warp import transform

    write_pair(tmp_path, "a", edge=100)
    write_pair(tmp_path, "b", (EAST + 200, NORTH), edge=100)
    dataset = find_dataset(tmp_path, MaskDataset, SHARE)
    val = dataset.splits["val"]
    kept = {path.stem: val.part.kept(path, slice(0, 100), slice(0, 100)) for path in val.images if val.part is not None}
    assert np.array_equal(kept["a"][:, 20:], kept["b"][:, :80])
    (left, right), (top, bottom) = transform("EPSG:32633", "EPSG:4326", [EAST, EAST + 1000], [NORTH, NORTH - 1000])
    height, width = 120, 80
    degrees = rasterio.Affine((right - left) / width, 0, left, 0, (bottom - top) / height, top)
    for kind, bands in (("images", 3), ("masks", 1)):
        values = np.tile(np.array([[[0], [1]], [[1], [0]]], np.uint8), (height // 2 + 1, width // 2 + 1, bands))
        path = write_geotiff(tmp_path / kind / "c.tif", values[:height, :width], crs="EPSG:4326")
        with rasterio.open(path, "r+") as target:
            target.transform = degrees
    val = find_dataset(tmp_path, MaskDataset, SHARE).splits["val"]
    assert val.part is not None
    first = next(path for path in footprints(sorted((tmp_path / "images").iterdir())) if path.stem == "a")
    rows, columns = (each.reshape(-1) for each in np.mgrid[:height, :width])
    x, y = degrees.a * (columns + 0.5) + degrees.c, degrees.e * (rows + 0.5) + degrees.f
    east, north = (np.array(each) for each in transform("EPSG:4326", "EPSG:32633", x, y))
    there = ((NORTH - north) / 10).astype(int), ((east - EAST) / 10).astype(int)
    inside = (there[0] >= 0) & (there[0] < 100) & (there[1] >= 0) & (there[1] < 100)
    own = val.part.kept(first.with_stem("c"), slice(0, height), slice(0, width)).reshape(-1)[inside]
    theirs = val.part.kept(first, slice(0, 100), slice(0, 100))[there[0][inside], there[1][inside]]
    assert (own == theirs).mean() > 0.95  # they differ at edges of blocks, which the margin covers
    assert theirs.any()


def test_far_images_are_in_one_split_each(tmp_path: Path) -> None:
    for number in range(12):
        write_pair(tmp_path, f"{number}", (EAST + 50_000 * number, NORTH + 3_000 * (number % 2)), edge=40)
    splits = find_dataset(tmp_path, MaskDataset, SHARE).splits
    assert len(splits["val"].images) in (2, 3)
    assert len(splits["train"].images) + len(splits["val"].images) in (12, 13)


def test_the_share_is_kept_on_the_mean() -> None:
    """Of squares of equal size; without images, by the places alone."""
    places = {Path("a"): Footprint((1.0, 0.0, 0.0, 0.0, -1.0, 1000.0), (1000, 1000))}
    shares = []
    for seed in range(20):
        blocks = blocks_of(places, 0.2, HoldOut(0.2, seed).holds)
        assert isinstance(blocks, Blocks)
        shares.append(blocks.kept(Path("a"), slice(0, 1000), slice(0, 1000), validates=True).mean())
    assert np.mean(shares) == pytest.approx(0.2, abs=0.02)
    assert min(shares) > 0.1


def test_what_the_command_says_and_prepares(scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("data", scene, "--val-share", 0.2, "--prepare", tmp_path / "out", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (
        "blocks of the ground (edge 10 pixels) and seed 0; an image can be in both: train 1, val 1"
        in report["read_as"]["splits"]
    )
    import rasterio

    splits, images = find_dataset(scene, MaskDataset, SHARE).splits, scene / "images"
    for name in ("train", "val"):
        numbers = splits[name].target(0)
        assert report["splits"][name]["class_pixels"] == {f"class{n}": int((numbers == n).sum()) for n in (0, 1)}
        with rasterio.open(tmp_path / f"out/masks/{name}/a.tif") as mask, rasterio.open(images / "a.tif") as image:
            assert np.array_equal(mask.read(1), numbers)
            assert (mask.crs, mask.transform, mask.nodata) == (image.crs, image.transform, 255)
        assert (tmp_path / f"out/images/{name}/a.tif").read_bytes() == (images / "a.tif").read_bytes()
    assert not report["notes"]


def test_a_scene_that_is_read_in_windows_is_divided_alike(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {name: split.target(0) for name, split in find_dataset(scene, MaskDataset, SHARE).splits.items()}
    monkeypatch.setattr(windows, "WINDOWED_PIXELS", 1_000)
    monkeypatch.setattr(windows, "STRIP_ROWS", 25)
    splits = find_dataset(scene, MaskDataset, SHARE).splits
    report = inspect_dataset(scene, SHARE)
    for name, expected in whole.items():
        assert splits[name].size_in_windows(0) == (60, 60)
        assert np.array_equal(np.concatenate([part for _, part in splits[name].targets(0)]), expected)
        window = slice(13, 47), slice(5, 50)
        assert np.array_equal(splits[name].read(0, window)[1], expected[window])
        assert np.array_equal(splits[name].window_target(0, window), expected[window])
        assert list(report.splits[name].of_class.values()) == [(expected == number).sum() for number in (0, 1)]


def test_where_some_images_lie_nowhere_all_are_held_out_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(4):
        write_pair(tmp_path, f"{number}", (EAST + 1_000 * number, NORTH))
    for kind in ("images", "masks"):
        (tmp_path / kind / "3.tif").unlink()
        np.save(tmp_path / kind / "3.npy", np.eye(60, dtype=np.uint8))
    splits = find_dataset(tmp_path, MaskDataset, SHARE).splits
    assert splits["val"].part is None
    assert "1 of 4 images do not say where they lie, such as 3.npy" in caplog.text


@pytest.mark.parametrize(
    ("away", "crs", "found"),
    [(0, "EPSG:32633", True), (600, "EPSG:32633", True), (700, "EPSG:32633", False), (0, "EPSG:25833", True)],
)
def test_splits_that_adjoin_are_named(
    away: int, crs: str, found: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The images are 600 metres wide; EPSG:25833 is nearly the same in another system."""
    write_pair(tmp_path, "train/a")
    write_pair(tmp_path, "val/b", (EAST + away, NORTH), crs=crs)
    assert any("adjoins" in each.what for each in inspect_dataset(tmp_path).notes) == found
    check_files(find_dataset(tmp_path, MaskDataset), ("train", "val"))
    assert ("adjoins or overlaps a.tif of train on the ground, as do 1 of 1 images of val" in caplog.text) == found


def test_without_rasterio_equal_systems_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2):
        write_pair(tmp_path, f"{number}", (EAST + 1_000 * number, NORTH))
    write_pair(tmp_path, "other", crs="EPSG:25833")
    images = sorted((tmp_path / "images").iterdir())
    monkeypatch.setitem(sys.modules, "rasterio", None)
    assert [path.stem for path in footprints(images[:2])] == ["0", "1"]
    assert footprints(images) == {}


@pytest.mark.usefixtures("one_thread")
def test_a_run_and_its_evaluation_use_the_same_blocks(scene: Path, tmp_path: Path) -> None:
    options = {"steps": 1, "batch_size": 1, "crop_size": 32, "workers": 0, "device": "cpu", "head_width": 8}
    run = cyclemlp.train("segmentation", data=scene, out=tmp_path / "run", val_share=0.2, **options)  # type: ignore[arg-type]
    scores = cyclemlp.evaluate(run, device="cpu")
    assert scores["metrics"] == {**run.metrics}
    other = cyclemlp.evaluate(run, split="train", device="cpu")
    assert other["metrics"] != scores["metrics"]


LINES = re.findall(r"^ {4}(cyclemlp .*--val-share .*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("line", LINES)
def test_the_commands_of_the_page(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_pair(tmp_path / "scenes", "a")
    quick = ["--steps", "1", "--batch-size", "1", "--crop-size", "32", "--workers", "0", "--head-width", "8"]
    assert command(*line.split()[1:], *(quick if " train " in line else [])) == 0


@pytest.mark.parametrize("turned", [False, True])
def test_small_blocks_are_the_share_that_was_asked_for(turned: bool) -> None:
    """Of 100 blocks an edge, far more than sample points would have met when there were 32 of them."""
    matrix = (0.8, 0.6, 0.0, 0.6, -0.8, 1000.0) if turned else (1.0, 0.0, 0.0, 0.0, -1.0, 1000.0)
    image, pixels = Path("a"), slice(0, 1000)
    blocks = blocks_of({image: Footprint(matrix, (1000, 1000))}, 0.2, HoldOut(0.2).holds, 10.0)
    assert blocks is not None
    assert blocks.total == pytest.approx(10_000, rel=0.1)
    for validates in (True, False):
        kept = blocks.kept(image, pixels, pixels, validates=validates).mean()
        assert blocks.share(image, validates=validates) == pytest.approx(kept, abs=0.03)
    assert blocks.kept(image, pixels, pixels, validates=True).mean() == pytest.approx(0.2, abs=0.02)


def test_a_window_is_compared_with_its_own_blocks_alone() -> None:
    image, window = Path("a"), (slice(100, 160), slice(200, 270))
    blocks = blocks_of(
        {image: Footprint((1.0, 0.0, 0.0, 0.0, -1.0, 1000.0), (1000, 1000))}, 0.2, HoldOut(0.2).holds, 10
    )
    assert blocks is not None
    found = dict(GroundPart(blocks, validates=True).held_out(image, *window))
    names = [f"{column} {row}" for column, row in sorted(blocks.held_out) if 20 <= column < 27 and 84 <= row < 90]
    assert list(found) == names != []
    assert np.array_equal(np.any(list(found.values()), axis=0), blocks.kept(image, *window, validates=True))


@pytest.mark.parametrize("edge", [1.0, 1e-300, 5e-324])
def test_too_many_blocks_are_refused_in_one_line(edge: float, scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("data", scene, "--val-share", 0.2, "--val-block", edge) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"blocks of {edge:g} divide the ground into more than 100000: give a larger --val-block" in line
    assert len(line) <= 200


def test_blocks_of_a_given_edge_stay_where_they_are_when_images_are_added() -> None:
    def place(column: int) -> Footprint:
        return Footprint((1.0, 0.0, 1000.0 * column, 0.0, -1.0, 1000.0), (1000, 1000))

    for seed in range(5):
        order = HoldOut(0.2, seed).holds
        few, many = (blocks_of({Path(str(i)): place(i) for i in range(n)}, 0.2, order, 100.0) for n in (3, 9))
        assert few is not None
        assert many is not None
        assert few.held_out == {block for block in many.held_out if block[0] < 30}
        assert len(many.held_out) / many.total == pytest.approx(0.2, abs=0.06)


@pytest.mark.parametrize("number", [0.0, 1.0])
def test_blocks_of_a_given_edge_are_neither_all_held_out_nor_none(number: float) -> None:
    places = {Path("a"): Footprint((1.0, 0.0, 0.0, 0.0, -1.0, 200.0), (200, 200))}
    blocks = blocks_of(places, 0.2, lambda _: number, 100.0)
    assert blocks is not None
    assert len(blocks.held_out) == (3 if number == 0 else 1)


def test_degrees_become_metres_alike_when_images_are_added(tmp_path: Path) -> None:
    for name, north in (("a", 50.1), ("b", 50.3)):
        write_pair(tmp_path, name, (10.0, north), step=1e-4, crs="EPSG:4326")
    images = sorted((tmp_path / "images").iterdir())
    assert footprints(images[:1])[images[0]] == footprints(images)[images[0]]
