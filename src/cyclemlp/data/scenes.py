"""Rasters that are read in windows, because they lie somewhere on the Earth or are larger than memory: scenes.

A scene is a TIFF or JPEG 2000 file with a georeference, or with more pixels than `cyclemlp.data.images` decodes at
once. rasterio reads it (extra `geo`). Pixels follow the rule of the model card, as those of any image do.
"""

import errno
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
import numpy.typing as npt

from cyclemlp.data.gdal import JPEG2000, TIFF, described_bands, masked_by_file, quiet
from cyclemlp.data.ground_resolution import metres_per_pixel
from cyclemlp.data.image_errors import MAX_PIXELS, ImageError, named_errors
from cyclemlp.data.images import JPEG2000_SUFFIXES, Pixels, check_transparency, is_tiff
from cyclemlp.data.pixel_rule import (
    PHOTO,
    PixelRule,
    Range,
    measured_by,
    measured_ranges,
    pixels_of,
    range_doubt,
    selected_bands,
)
from cyclemlp.data.rasters import Raster, as_bands, check_bands, checked
from cyclemlp.data.tiff_tags import (
    alpha_band,
    band_names,
    first_page,
)
from cyclemlp.data.windows import SCENE_SUFFIXES, TIFF_SUFFIXES, Window, is_plain
from cyclemlp.errors import MissingExtraError

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

_LARGE_BLOCK = 2**20
"""Pixels of a block from which on reading small windows is slow."""
_MEASURED_PIXELS = 2**22
"""Pixels, evenly spread, from which the range of a scene's values is measured."""

_MAX_STRETCH = 0.02
"""Share by which the area of a pixel on the ground may differ from that in its coordinates: UTM has 0.2 % at most."""
_PLACES = ((0.5, 0.5), (0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))
"""Where that is measured, in shares of height and width."""
_NOT_HELD = "the disk does not hold what was written to it"
_LAYOUT = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "bigtiff": "if_safer"}

_LOG = logging.getLogger(__name__)


def is_scene(path: Path) -> bool:
    """Whether a file is a scene, by its header. False where rasterio is missing, or the header is damaged."""
    try:
        import rasterio
        from rasterio.errors import RasterioError
    except ModuleNotFoundError:
        return False
    driver = _driver(path)
    try:
        if driver == TIFF and (not is_tiff(path) or not is_plain(path)):
            return False
        with quiet(), rasterio.open(path, driver=driver) as source:
            placed = source.crs is not None or not source.transform.is_identity
            return bool(placed or source.width * source.height > MAX_PIXELS)
    except (RasterioError, ImageError, UnicodeEncodeError):  # the last of a name that is not UTF-8
        return False  # reading the image says what is wrong


def _driver(path: Path) -> str:
    return JPEG2000 if path.suffix.lower() in JPEG2000_SUFFIXES else TIFF


def pixel_area(path: Path) -> float | None:
    """Square metres of a pixel of an image; None for what is no scene, and as `Place.pixel_area`."""
    if path.suffix.lower() not in SCENE_SUFFIXES or not is_scene(path):
        return None
    with stored_scene(path) as scene:
        return scene.place.pixel_area


@dataclass(frozen=True)
class Place:
    """Where a scene lies: what is written into everything that is made of it."""

    height: int
    width: int
    crs: Any
    """rasterio's coordinate reference system, or None."""
    transform: Any
    """Affine transform from (column, row) to coordinates."""

    @cached_property
    def pixel_area(self) -> float | None:
        """Square metres of a pixel; None where coordinates are no lengths, or stretch them as Mercator's do."""
        if self.crs is None or not self.crs.is_projected:
            return None
        area = abs(float(self.transform.determinant)) * float(self.crs.linear_units_factor[1]) ** 2
        edges = (metres_per_pixel(self.crs, self.transform, (self.height, self.width), at) for at in _PLACES)
        return area if all(edge and abs(edge**2 / area - 1) <= _MAX_STRETCH for edge in edges) else None


@dataclass(frozen=True, eq=False)
class Scene:
    """An open scene. Raises ImageError where it does not fit the rule or is damaged, at whatever is read first."""

    path: Path
    source: "DatasetReader"
    rule: PixelRule
    place: Place
    alpha: int | None
    names: tuple[str, ...] = ()

    def pixels(self, rows: slice, columns: slice) -> Pixels:
        """The pixels (height, width, channels) of a window, by the rule."""
        return self.measured((rows, columns))[0]

    def valid(self, rows: slice) -> npt.NDArray[np.bool_] | None:
        """Whether each pixel of whole rows is measured and not transparent; None where all are."""
        return measured_by(self._raster((rows, slice(0, self.place.width))), self.rule)

    def measured(self, window: Window) -> tuple[Pixels, npt.NDArray[np.bool_] | None]:
        """The pixels (height, width, channels) of a window, by the rule, and as `valid` which of them are measured."""
        raster = self._raster(window)
        valid = measured_by(raster, self.rule)
        return pixels_of(selected_bands(raster, self.rule, str(self.path)), self.rule, valid), valid

    def _raster(self, window: Window) -> Raster:
        from rasterio.windows import Window as RasterioWindow

        return self._read(window=RasterioWindow.from_slices(*window))

    def _read(self, **part: Any) -> Raster:
        from rasterio.errors import RasterioError

        with named_errors(self.path):
            try:
                values = np.moveaxis(self.source.read(**part), 0, -1)
                masked = masked_by_file(self.source, **_of_one_band(part))
            except RasterioError as error:
                raise OSError(str(error)) from error
        raster = Raster(as_bands(values), self.names, self.source.nodata, self.alpha, masked)
        return checked(raster, self.path)

    def sampled(self, pixels: int = _MEASURED_PIXELS) -> Raster:
        """Evenly spread pixels of the whole scene, at most this number."""
        share = min(1.0, (pixels / (self.place.height * self.place.width)) ** 0.5)
        shape = (max(1, round(self.place.height * share)), max(1, round(self.place.width * share)))
        return self._read(out_shape=(self.source.count, *shape))


def _of_one_band(part: dict[str, Any]) -> dict[str, Any]:
    """The same part of a scene for a reader of one band."""
    return {name: value[1:] if name == "out_shape" else value for name, value in part.items()}


@contextmanager
def open_scene(path: Path, rule: PixelRule) -> Iterator[Scene]:
    """A scene whose pixels follow `rule`; a range of its own is measured once, on evenly spread pixels.

    Values that do not fit the rule's range are named in the log. Raises ImageError for an unusable file or other
    bands, MissingExtraError without rasterio.
    """
    with stored_scene(path, rule) as scene:
        yield replace(scene, rule=_rule_of(scene))


@contextmanager
def stored_scene(path: Path, rule: PixelRule = PHOTO) -> Iterator[Scene]:
    """A scene with a rule that is taken as it is, such as one that `rule_of_windows` has found.

    Raises as `open_scene`.
    """
    try:
        import rasterio
        from rasterio.errors import RasterioError
    except ModuleNotFoundError as error:
        raise MissingExtraError("rasterio", "geo") from error
    driver = _driver(path)
    with quiet():
        with named_errors(path), path.open("rb") as file:
            tags = first_page(file) if driver == TIFF else {}
            check_bands(tags, path)
            try:
                source = rasterio.open(path, driver=driver)
            except RasterioError as error:
                raise OSError(str(error)) from error
        with source:
            place = Place(source.height, source.width, source.crs, source.transform)
            names, alpha = (band_names(tags), alpha_band(tags)) if driver == TIFF else described_bands(source)
            yield Scene(path, source, rule, place, alpha, names)


def rule_of_windows(path: Path, rule: PixelRule) -> PixelRule:
    """The rule by which the windows of an image become pixels: measured once where its values decide.

    Raises as `open_scene`.
    """
    with named_errors(path):
        state = path.stat()
    return _remembered_rule(path, rule, state.st_mtime_ns, state.st_size)


def slow_windows(path: Path) -> str:
    """What makes windows of a large TIFF slow to read, in a few words; empty where nothing does."""
    import rasterio

    if path.suffix.lower() not in TIFF_SUFFIXES:
        return ""
    with named_errors(path), quiet(), rasterio.open(path) as source:
        rows, columns = source.block_shapes[0]
        if rows * columns <= _LARGE_BLOCK or source.is_tiled:
            return ""
        return (
            f"is stored in strips of {columns} x {rows} pixels, each read whole for a window: "
            "gdal_translate -co TILED=YES makes it faster"
        )


@lru_cache(maxsize=1024)
def _remembered_rule(path: Path, rule: PixelRule, changed: int, size: int) -> PixelRule:
    del changed, size  # they only tell one state of the file from another
    if rule.values == "fixed":
        return rule
    with stored_scene(path, rule) as scene:
        return _rule_of(scene)


def _bits(source: "DatasetReader") -> int:
    """Of each value of 8 bits or fewer: GDAL leaves those of 1, 2 and 4 bits as they are, Pillow makes white 255."""
    return int(source.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8))


def _rule_of(scene: Scene) -> PixelRule:
    """The rule for all windows alike: per-image ranges are those of the scene."""
    rule, sample = scene.rule, scene.sampled()
    if rule.values == "photo":
        bands = sample.bands
        if sample.values.dtype != np.uint8 or bands not in (1, 3):
            kind = sample.values.dtype.name
            what = f"has {bands} bands of type {kind}, and the model was trained on photographs (8 bits, grey or RGB)"
            raise ImageError(scene.path, what, "train on such images, or save it as those were")
        if sample.alpha is not None:
            check_transparency(sample.values[..., sample.alpha], scene.path)
        return PixelRule("fixed", ranges=((0.0, 2.0 ** _bits(scene.source) - 1),))
    chosen = selected_bands(sample, rule, str(scene.path))
    valid = measured_by(sample, rule)
    if rule.values == "fixed":
        if doubt := range_doubt(chosen, valid, rule):
            _LOG.warning("warning: %s %s", scene.path, doubt)
        return rule
    measured = chosen if valid is None or not valid.any() else chosen[valid][:, None]
    ranges: tuple[Range, ...] = measured_ranges(measured, each=bool(rule.bands))
    return replace(rule, values="fixed", ranges=ranges)


@dataclass(frozen=True, eq=False)
class ScenePlanes:
    """A scene as an array (1, channels, height, width) of which windows are read when they are taken."""

    scene: Scene

    @property
    def shape(self) -> tuple[int, ...]:
        """(1, channels, height, width)"""
        return 1, self.scene.rule.channels, self.scene.place.height, self.scene.place.width

    def window(self, rows: slice, columns: slice) -> Pixels:
        """(1, channels, height, width) of these rows and columns."""
        return np.ascontiguousarray(self.scene.pixels(rows, columns).transpose(2, 0, 1))[None]


def write_geotiff(
    path: Path, place: Place, strips: Iterable[npt.NDArray[Any]], bands: int, nodata: float | None, **described: Any
) -> None:
    """Strips (bands, rows, width) from top to bottom as a tiled, compressed TIFF where the scene lies.

    `described` may have `colours` (for a single band of uint8), `tags`, `scale` and `names` of the bands. Raises
    OSError where the file does not hold the strips in the end: GDAL closes it without a word where the disk is full.
    """
    import rasterio
    from rasterio.windows import Window

    rows, source, written = 0, iter(strips), list[tuple[Any, int]]()
    first = next(source)
    profile = {"driver": "GTiff", "height": place.height, "width": place.width, "count": bands, "dtype": first.dtype}
    profile |= {"crs": place.crs, "transform": place.transform, "nodata": nodata, **_LAYOUT}
    with quiet(), _on_disk(path), rasterio.open(path, "w", **profile) as target:
        # Before any values: once there are some, GDAL says that it cannot change the kind of file.
        target.update_tags(**described.get("tags", {}))
        if colours := described.get("colours"):
            target.write_colormap(1, colours)
        if names := described.get("names"):
            target.descriptions = names
        if scale := described.get("scale"):
            target.scales = (scale,) * bands
        for strip in chain([first], source):
            window = Window(0, rows, place.width, strip.shape[1])
            target.write(strip, window=window)
            written.append((window, crc32(np.ascontiguousarray(strip).data)))
            rows += strip.shape[1]
    with quiet(), _on_disk(path), rasterio.open(path) as source:
        for window, digest in written:
            if crc32(source.read(window=window)) != digest:
                raise OSError(errno.ENOSPC, _NOT_HELD, str(path))


@contextmanager
def _on_disk(path: Path) -> Iterator[None]:
    """What GDAL says of a file that is being written becomes an OSError with a number, as those of the disk have."""
    from rasterio.errors import RasterioError

    try:
        yield
    except RasterioError as error:
        raise OSError(errno.ENOSPC, _NOT_HELD, str(path)) from error
