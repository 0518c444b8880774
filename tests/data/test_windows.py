"""Large images are read in windows: the same pixels and classes as whole, in memory that does not grow with them."""

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cyclemlp.data import windows
from cyclemlp.data.augmentation import MaskAugmentation
from cyclemlp.data.class_places import CELL, ClassPlaces
from cyclemlp.data.contact_sheet import contact_sheet
from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.inspect import inspect_dataset
from cyclemlp.data.mask_samples import MaskSamples
from cyclemlp.data.mask_transforms import MaskTrainTransform
from cyclemlp.data.masks import MaskDataset, MaskSplit
from cyclemlp.data.pixel_measurement import measure_pixels
from cyclemlp.data.pixel_rule import PixelRule
from cyclemlp.data.prepared import write_prepared
from cyclemlp.data.resizing import ResizeRule
from cyclemlp.data.stored_masks import read_mask
from cyclemlp.data.transforms import Normalisation
from cyclemlp.errors import ConfigError, DataError

rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")
pyogrio = pytest.importorskip("pyogrio", reason="pyogrio is not installed")

SIZE = (600, 700)
WINDOW = (slice(210, 530), slice(95, 420))
Numbers = np.ndarray[Any, Any]


def write(path: Path, values: Numbers, **options: Any) -> Path:
    """(bands, height, width) as a tiled GeoTIFF of 10 metres a pixel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "count": len(values), "height": values.shape[1], "width": values.shape[2]}
    profile |= {"dtype": values.dtype, "tiled": True, "blockxsize": 128, "blockysize": 128, "crs": "EPSG:32633"}
    colours = options.pop("colours", None)
    with rasterio.open(path, "w", **profile, transform=rasterio.Affine(10, 0, 5e5, 0, -10, 5.4e6), **options) as target:
        target.write(values)
        if colours:
            target.write_colormap(1, colours)
    return path


def draw(shape: tuple[int, ...], dtype: str = "uint8", high: int = 256) -> Numbers:
    return np.random.default_rng(0).integers(1, high, shape).astype(dtype)


def classes(size: tuple[int, int] = SIZE) -> Numbers:
    """Squares of class 1, and a few pixels of class 2."""
    rows, columns = np.indices(size)
    numbers = ((rows // 40 + columns // 40) % 2).astype(np.uint8)
    numbers[::97, ::89] = 2
    return numbers


def split_of(folder: Path, image: Numbers | None = None, mask: Numbers | None = None, **options: Any) -> MaskSplit:
    image = draw((3, *SIZE)) if image is None else image
    path = write(folder / "images" / "a.tif", image, **options)
    return MaskSplit((path,), (write(folder / "masks" / "a.tif", classes()[None] if mask is None else mask),))


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of the tests count as large."""
    monkeypatch.setattr(windows, "WINDOWED_PIXELS", 10_000)


def samples(split: MaskSplit, rule: ResizeRule | None = None, **options: Any) -> MaskSamples:
    augmentation = MaskAugmentation(crop_size=64, **options)
    return MaskSamples(split, MaskTrainTransform(augmentation, Normalisation(), rule or ResizeRule()))


def drawn(samples_: MaskSamples, count: int = 5) -> list[torch.Tensor]:
    torch.manual_seed(7)
    return [tensor for item in range(count) for tensor in samples_[item % len(samples_)]]


def of_colours(split: MaskSplit) -> MaskSplit:
    path = write(split.masks[0], classes()[None], colours={n: (n * 50, 0, 9, 255) for n in range(3)})
    return replace(split, masks=(path,))


def of_floats(split: MaskSplit) -> MaskSplit:
    numbers = classes().astype(np.float32)
    numbers[300:400] = -1
    return replace(split, masks=(write(split.masks[0], numbers[None], nodata=-1),))


def of_white(split: MaskSplit) -> MaskSplit:
    return replace(split, white_class=True, masks=(write(split.masks[0], (classes() % 2)[None] * np.uint8(255)),))


def with_zero_ignored(split: MaskSplit) -> MaskSplit:
    return replace(split, zero_ignored=True)


@pytest.mark.usefixtures("small_limit")
@pytest.mark.parametrize("change", [None, of_colours, of_floats, of_white, with_zero_ignored])
def test_a_window_of_a_mask_is_what_the_whole_mask_has_there(
    change: Callable[[MaskSplit], MaskSplit] | None, tmp_path: Path
) -> None:
    split = split_of(tmp_path)
    split = split if change is None else change(split)
    assert split.size_in_windows(0) == SIZE
    pixels, target = split.read(0)
    part, part_target = split.read(0, WINDOW)
    assert np.array_equal(part, pixels[WINDOW])
    assert np.array_equal(part_target, target[WINDOW])
    assert len(np.unique(target)) > 1
    strips = [strip for _, strip in split.targets(0)]
    assert len(strips) > 1
    assert np.array_equal(np.concatenate(strips), target)


@pytest.mark.usefixtures("small_limit")
def test_bands_of_any_value_and_pixels_without_measurement(tmp_path: Path) -> None:
    values = draw((5, *SIZE), "uint16", 4096)
    values[:, 400:450] = 0
    rule = PixelRule("fixed", (5, 2), 5, ranges=((0.0, 4095.0),))
    split = replace(split_of(tmp_path, values, nodata=0), rule=rule)
    pixels, target = split.read(0)
    part, part_target = split.read(0, WINDOW)
    assert np.array_equal(part, pixels[WINDOW])
    assert np.array_equal(part_target, target[WINDOW])
    assert (target[400:450] == 255).all()
    assert np.array_equal(split.window_target(0, WINDOW), target[WINDOW])
    measured = measure_pixels(split.images, (5, 2), None)
    assert (measured.rule.bands, measured.rule.ranges) == ((5, 2), ((0.0, 4095.0),))


@pytest.mark.usefixtures("small_limit")
def test_a_range_of_its_own_is_that_of_the_image_and_not_of_the_window(tmp_path: Path) -> None:
    values = np.broadcast_to(np.arange(SIZE[1], dtype=np.uint16), (1, *SIZE))
    split = replace(split_of(tmp_path, values), rule=PixelRule("per-image", (1,), 1))
    assert np.abs(split.read(0, WINDOW)[0].astype(int) - split.read(0)[0][WINDOW]).max() <= 1


@pytest.mark.usefixtures("small_limit")
def test_areas_on_a_map_are_drawn_on_windows(tmp_path: Path) -> None:
    import shapely

    write(tmp_path / "images" / "train" / "a.tif", draw((3, *SIZE)))
    place = tmp_path / "masks" / "train" / "a.geojson"
    place.parent.mkdir(parents=True)
    shapes = [
        shapely.Point(5e5 + 10 * x, 5.4e6 - 10 * y).buffer(10 * r) for x, y, r in ((260, 370, 90), (330, 400, 60))
    ]
    names = np.array(["pond", "reed"], dtype=object)
    pyogrio.raw.write(place, shapely.to_wkb(shapes), [names], ["class"], geometry_type="Polygon", crs="EPSG:32633")
    for folder in ("images", "masks"):
        (tmp_path / folder / "val").mkdir()
        for path in (tmp_path / folder / "train").iterdir():
            (tmp_path / folder / "val" / path.name).write_bytes(path.read_bytes())
    split = find_dataset(tmp_path, MaskDataset).splits["train"]
    target = split.target(0)
    assert np.array_equal(split.read(0, WINDOW)[1], target[WINDOW])
    assert set(np.unique(target[WINDOW])) == {0, 1, 2}
    report = inspect_dataset(tmp_path)
    assert not report.problems
    assert report.splits["train"].of_class["reed"] == (target == 2).sum()


def test_samples_are_those_of_the_image_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = split_of(tmp_path)
    options: dict[str, Any] = {"rare_class_crops": 0.0, "largest_class": 0.9}
    whole = drawn(samples(split, **options))
    monkeypatch.setattr(windows, "WINDOWED_PIXELS", 10_000)
    in_windows = samples(split, **options)
    assert len(in_windows) == -(-SIZE[0] * SIZE[1] // 64**2)
    assert all(torch.equal(one, other) for one, other in zip(drawn(in_windows), whole, strict=True))


@pytest.mark.usefixtures("small_limit")
def test_rare_classes_are_found_in_windows(tmp_path: Path) -> None:
    split = replace(split_of(tmp_path), num_classes=3)
    found = drawn(samples(split, rare_class_crops=1.0, scale=(1.0, 1.0)), 40)[1::2]
    without = drawn(samples(split, rare_class_crops=0.0, scale=(1.0, 1.0)), 40)[1::2]
    shares = [sum(bool((mask == 2).any()) for mask in masks) for masks in (found, without)]
    assert shares[0] > 1.2 * shares[1]


def test_each_pixel_of_a_class_is_drawn_once() -> None:
    numbers = np.random.default_rng(0).integers(0, 3, (CELL + 5, CELL + 9)).astype(np.uint8)
    places = ClassPlaces.of((CELL + 5, CELL + 9), [((slice(0, CELL + 5), slice(0, CELL + 9)), numbers)], 3)
    assert places.totals.tolist() == np.bincount(numbers.ravel()).tolist()
    found = [places.find(2, nth) for nth in range(int(places.totals[2]))]
    in_cells = {(rows.start, columns.start): (numbers[rows, columns] == 2).sum() for (rows, columns), _ in found}
    assert len(in_cells) == 4
    each_once = {(*cell, nth) for cell, count in in_cells.items() for nth in range(count)}
    assert {(rows.start, columns.start, left) for (rows, columns), left in found} == each_once
    assert len(found) == len(each_once) == (numbers == 2).sum()


def test_memory_is_that_of_windows(tmp_path: Path) -> None:
    """The image alone has 48 MB, the mask 16 MB."""
    size = (16_000, 1000)
    image = np.zeros((3, *size), np.uint8)
    split = split_of(tmp_path, image, classes(size)[None], compress="deflate")
    del image
    tracemalloc.start()
    try:
        in_windows = samples(replace(split, num_classes=3))
        drawn(in_windows, 10)
        assert tracemalloc.get_traced_memory()[1] < 16_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.usefixtures("small_limit")
def test_data_are_checked_shown_and_prepared_in_windows(tmp_path: Path) -> None:
    for part in ("train", "val"):
        write(tmp_path / "data" / "images" / part / "a.tif", draw((3, *SIZE)))
        write(tmp_path / "data" / "masks" / part / "a.tif", classes()[None])
    report = inspect_dataset(tmp_path / "data")
    assert not report.problems
    assert list(report.splits["train"].of_class.values()) == np.bincount(classes().ravel()).tolist()
    assert isinstance(report.dataset, MaskDataset)
    assert contact_sheet(report.dataset, 2) is not None
    write_prepared(report.dataset, tmp_path / "out")
    assert np.array_equal(read_mask(tmp_path / "out" / "masks" / "val" / "a.tif"), classes())


@pytest.mark.usefixtures("small_limit")
def test_a_value_outside_the_classes_is_named(tmp_path: Path) -> None:
    split = replace(split_of(tmp_path), num_classes=2)
    with pytest.raises(DataError, match=r"a\.tif.*holds the value 2, outside the 2 classes"):
        split.read(0, (slice(0, 200), slice(0, 200)))


@pytest.mark.usefixtures("small_limit")
def test_resizing_as_a_whole_is_refused_where_the_image_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = split_of(tmp_path)
    assert len(samples(split, ResizeRule(short_side=128))) == 1  # it is decoded whole
    monkeypatch.setattr("cyclemlp.data.mask_samples.MAX_PIXELS", 20_000)
    with pytest.raises(ConfigError, match=r"--short-side and --long-side resize whole images, and .*a\.tif"):
        samples(split, ResizeRule(short_side=128))


@pytest.mark.usefixtures("small_limit")
def test_a_mask_that_has_no_windows_is_read_whole(tmp_path: Path) -> None:
    from PIL import Image

    split = split_of(tmp_path)
    place = tmp_path / "masks" / "a.png"
    Image.fromarray(classes()).save(place)
    split = replace(split, masks=(place,))
    assert split.size_in_windows(0) is None
    assert np.array_equal(next(split.targets(0))[1], classes())
