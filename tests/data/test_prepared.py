"""`cyclemlp data` says how masks are understood, and writes them in the ordinary layout with the same labels."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from command_line import command, refused
from PIL import Image

from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.held_out import HoldOut
from cyclemlp.data.inspect import inspect_dataset
from cyclemlp.data.masks import MaskDataset
from cyclemlp.data.prepared import write_prepared
from cyclemlp.data.problems import DataRequest
from cyclemlp.errors import DataError

VALUES = np.zeros((20, 30), np.uint8)
VALUES[:5], VALUES[-2:] = 1, 2
SHARE = DataRequest(hold_out=HoldOut(0.34))
PLACE = {"crs": "EPSG:32633", "transform": rasterio.Affine(2, 0, 500000, 0, -2, 4000000)}


def scene(path: Path, values: np.ndarray = VALUES, **options: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = {"height": 20, "width": 30, "count": 1, "dtype": "uint8", **PLACE, **options}
    with rasterio.open(path, "w", driver="GTiff", **shape) as file:
        file.write(values[None])


def mask(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def black_and_white(root: Path) -> None:
    for name in "abc":
        scene(root / f"images/{name}.tif")
        mask(root / f"masks/{name}_mask.png", np.where(VALUES == 1, 255, 0).astype(np.uint8))


def coloured(root: Path) -> None:
    palette = np.array([(9, 9, 9), (255, 0, 0), (1, 2, 3)], np.uint8)
    for name in "abc":
        scene(root / f"images/north/{name}.tif")
        mask(root / f"masks/north/{name}.png", palette[VALUES])
    (root / "classes.txt").write_text("grass 9 9 9\nroof #ff0000\nvoid 1 2 3\n")


def areas(root: Path) -> None:
    box = [[500000, 4000000], [500060, 4000000], [500060, 3999990], [500000, 3999990], [500000, 4000000]]
    geometry = {"type": "Polygon", "coordinates": [box]}
    feature = {"type": "Feature", "properties": {"label": "roof"}, "geometry": geometry}
    system = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    for name in "abc":
        scene(root / f"images/{name}.tif")
        (root / "masks").mkdir(exist_ok=True)
        text = {"type": "FeatureCollection", "crs": system, "features": [feature]}
        (root / f"masks/{name}.geojson").write_text(json.dumps(text))


def with_nodata(root: Path) -> None:
    for name in "abc":
        scene(root / f"images/{name}.tif")
        scene(root / f"masks/{name}.tif", nodata=2)


def listed(root: Path) -> None:
    for name in ("a/x", "b/x", "b/y"):
        scene(root / f"{name}.tif")
        mask(root / f"{name}-drawn.png", VALUES)
    rows = [f"{name}.tif,{name}-drawn.png" for name in ("a/x", "b/x", "b/y")]
    (root / "pairs.csv").write_text("\n".join(["image,mask", *rows]))


WAYS: dict[Callable[[Path], None], tuple[str, str]] = {
    black_and_white: (
        "the same place and name in images and masks, names of masks ending in _mask, such as images/a.tif with"
        " masks/a_mask.png",
        "0 in a mask is background, 255 is object",
    ),
    coloured: (
        "the same place and name in images and masks, such as images/north/a.tif with masks/north/a.png",
        "by the colours of masks: grass 9 9 9, roof 255 0 0, void 1 2 3",
    ),
    areas: (
        "the same place and name in images and masks, such as images/a.tif with masks/a.geojson",
        "areas on a map, by the property label; each pixel has that of the area its centre lies in: background, roof",
    ),
    with_nodata: (
        "the same place and name in images and masks, such as images/a.tif with masks/a.tif",
        "by the numbers in masks: 0 is class0, 1 is class1; 255 is ignored; nothing names them, so they are counted",
    ),
    listed: (
        "a list of pairs, names of masks ending in -drawn, such as a/x.tif with a/x-drawn.png",
        "by the numbers in masks: 0 is class0, 1 is class1, 2 is class2; 255 is ignored; nothing names them, so they"
        " are counted",
    ),
}


@pytest.mark.parametrize("write", WAYS, ids=lambda each: each.__name__)
def test_what_was_understood_is_told_and_written(tmp_path: Path, write: Callable[[Path], None]) -> None:
    root, out = tmp_path / "d", tmp_path / "out"
    root.mkdir()
    write(root)
    report = inspect_dataset(root, SHARE)
    assert report.problems == ()
    pairs, classes = WAYS[write]
    splits = (
        "--val-share 0.34 by 8 of 24 blocks of the ground (edge 5 pixels) and seed 0; an image can be in both: train 3,"
        " val 3"
    )
    assert report.read_as["classes"] == classes
    assert report.read_as["splits"] == splits
    assert report.read_as["pairs"].partition(", such as")[0] == pairs.partition(", such as")[0]
    assert isinstance(report.dataset, MaskDataset)
    write_prepared(report.dataset, out)
    before, after = find_dataset(root, MaskDataset, SHARE), find_dataset(out, MaskDataset)
    assert after.classes == before.classes
    assert inspect_dataset(out).splits == report.splits
    for name, split in before.splits.items():
        assert len(after.splits[name].images) == len(split.images)
        for index, image in enumerate(split.images):
            assert after.splits[name].images[index].read_bytes() == image.read_bytes()
            np.testing.assert_array_equal(after.splits[name].target(index), split.target(index))


def test_the_command_prepares_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = tmp_path / "d", tmp_path / "out"
    black_and_white(root)
    options = ["data", root, "--val-share", "0.34", "--prepare", out]
    assert command(*options) == 0
    shown = capsys.readouterr().out
    assert f"classes: {WAYS[black_and_white][1]}\n" in shown
    assert shown.endswith(f"\n\nprepared: {out}\n")
    assert (out / "classes.txt").read_text() == "background\nobject\n"
    assert f"--prepare {out} exists and is not empty: choose another folder" in refused(capsys, *options)
    assert "lies in the data, where it would be read as a part of them" in refused(capsys, *options[:-1], root / "o")
    assert command(*options[:-1], tmp_path / "again", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["prepared"] == str(tmp_path / "again")
    assert report["read_as"]["splits"].startswith("--val-share 0.34")


def test_data_with_problems_are_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    black_and_white(tmp_path / "d")
    (tmp_path / "d/masks/a_mask.png").unlink()
    assert command("data", tmp_path / "d", "--val-share", "0.34", "--prepare", tmp_path / "out") == 2
    assert "prepared" not in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_a_file_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    black_and_white(tmp_path / "d")
    dataset = find_dataset(tmp_path / "d", MaskDataset, SHARE)
    dataset.splits["val"].masks[0].write_bytes(b"x")
    with pytest.raises(DataError, match="is not an image"):
        write_prepared(dataset, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_other_labels_are_not_prepared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("cat", "dog"):
        mask(tmp_path / "d" / name / "a.png", VALUES + len(name) + ord(name[0]))
    message = refused(capsys, "data", tmp_path / "d", "--prepare", tmp_path / "out")
    assert "--prepare is for masks, and" in message
