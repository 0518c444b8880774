"""Labels drawn as areas on a map, in GeoJSON, GeoPackage or Shapefile, made into masks on the grid of their image.

A pixel has the class of the area that its centre lies in, of several the one that the file lists last, and without any
that of the background. pyogrio reads the files, shapely holds the areas, rasterio converts the coordinates and draws
(extra `geo`).
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cyclemlp.data.folders import name_key
from cyclemlp.data.image_errors import ImageError, check_pixels, named_errors
from cyclemlp.data.images import Pixels
from cyclemlp.data.palettes import IGNORED, is_ignored
from cyclemlp.data.problems import listed
from cyclemlp.data.windows import Window
from cyclemlp.documents import shown
from cyclemlp.errors import MissingExtraError, did_you_mean

_FORMATS = {".geojson": "GeoJSON", ".gpkg": "GeoPackage", ".shp": "Shapefile"}
VECTOR_SUFFIXES = frozenset(_FORMATS)
BACKGROUND, OBJECT = "background", "object"
"""The class of pixels in no area, and that of all areas where no property says theirs."""
USUAL_FIELDS = ("class", "label", "category", "class_name", "classname")
"""Properties that name the class where `--label-field` is not given, in upper or lower case."""
NO_FIELD = "none"
"""What `--label-field` is given where all areas are one class."""
MAX_CLASSES = 254
_SIDECARS = (".dbf", ".shx", ".prj", ".cpg")
_AREAS = ("Polygon", "MultiPolygon")


@dataclass(frozen=True)
class VectorRule:
    """How the areas of vector files become classes."""

    field: str | None
    """The property that names the class of an area; None where all are `object`."""
    classes: tuple[str, ...]
    """The names of the classes, `background` among them."""

    def number(self, name: str) -> int | None:
        """The number of a class, or 255 for `ignore` and `void`; None for another name."""
        name = BACKGROUND if _is_background(name) else name
        return self._numbers.get(name_key(name), IGNORED if is_ignored(name) else None)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name_key(name): number for number, name in enumerate(self.classes)}


class VectorCounts(NamedTuple):
    """What a vector file holds for an image."""

    objects: int
    outside: int
    """Objects that do not touch the image."""
    overlapping: int
    """Pixels that lie in objects of different classes."""


@dataclass(frozen=True, eq=False)
class _Areas:
    """The content of a vector file."""

    shapes: Any
    """Array of shapely's geometries."""
    properties: dict[str, npt.NDArray[Any]]
    crs: str | None


def is_vector(path: Path) -> bool:
    """Whether a file holds areas by its suffix."""
    return path.suffix.lower() in VECTOR_SUFFIXES


def files_of(path: Path) -> list[Path]:
    """The file, and those that belong to a Shapefile."""
    if path.suffix.lower() != ".shp":
        return [path]
    return [path, *(each for each in map(path.with_suffix, _SIDECARS) if each.is_file())]


def label_field(paths: Sequence[Path], asked: str | None) -> str | None:
    """The property that names classes in these files; None where all areas are one class. Raises ImageError.

    Without `asked` it is the only one of the usual names that a file has; none is needed where objects have no
    properties at all.
    """
    if asked == NO_FIELD:
        return None
    for path in paths:
        areas = _areas(path)
        if not len(areas.shapes):
            continue
        if asked is not None:
            return asked
        usual = [name for name in areas.properties if name.casefold() in USUAL_FIELDS]
        if len(usual) == 1:
            return usual[0]
        if areas.properties:
            what = f"has the properties {listed(list(areas.properties), 8)}"
            fix = f"say which names the class with --label-field, or that all are one with --label-field {NO_FIELD}"
            raise ImageError(path, what, fix)
        return None
    return asked


def names_in(paths: Sequence[Path], field: str | None) -> tuple[str, ...]:
    """The background and the classes of all areas of these files, in the order of numbers and of the alphabet.

    Raises ImageError for an area without one, and for more than 254.
    """
    names: set[str] = set()
    for path in paths:
        names |= {name for name in _names(path, field) if not is_ignored(name) and not _is_background(name)}
        if len(names) > MAX_CLASSES:
            what = f"has, with the files before it, more than {MAX_CLASSES} values of {field}"
            raise ImageError(path, what, "choose another property with --label-field")
    return (BACKGROUND, *sorted(names, key=_in_order))


def rasterised(path: Path, image: Path, rule: VectorRule, window: Window | None = None) -> tuple[Pixels, VectorCounts]:
    """The class of each pixel of an image, or of a window of it, uint8 (height, width), from the areas in a file.

    Raises ImageError for an image without georeference, a file without coordinate reference system, and areas of a
    class that is not one of the rule's; MissingExtraError.
    """
    try:
        from rasterio.features import rasterize
    except ModuleNotFoundError:
        raise MissingExtraError("rasterio", "geo") from None
    crs, transform, size = _placed(image, path)
    rows, columns = window or (slice(0, size[0]), slice(0, size[1]))
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    check_pixels(image, shape[0] * shape[1])
    shapes = _converted(path, _areas(path), crs.to_wkt())
    numbers = _numbers(path, rule)
    outside = len(shapes) - int(_touching(shapes, _corners(transform, size)).sum())
    part = transform @ transform.translation(columns.start, rows.start)
    inside = _touching(shapes, _corners(part, shape))
    pairs = list(zip(shapes[inside].tolist(), numbers[inside].tolist(), strict=True))
    background = rule.number(BACKGROUND) or 0
    drawn, reversed_ = (
        rasterize(order, shape, fill=background, transform=part, dtype="uint8")
        if order
        else np.full(shape, background, np.uint8)
        for order in (pairs, pairs[::-1])
    )
    return drawn, VectorCounts(len(shapes), outside, int((drawn != reversed_).sum()))


def _placed(image: Path, labels: Path) -> tuple[Any, Any, tuple[int, int]]:
    """Coordinate reference system, transform and size of an image. Raises ImageError where it lies nowhere."""
    import rasterio

    with named_errors(image), _rasterio_errors(), rasterio.open(image) as scene:
        crs, transform, size = scene.crs, scene.transform, (scene.height, scene.width)
    if crs is None or transform.is_identity:
        what = f"does not say where it lies, so that the areas in {labels.name} have no place on it"
        raise ImageError(image, what, "give it a coordinate reference system and a transform, or use masks of pixels")
    return crs, transform, size


def _corners(transform: Any, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """(4, 2): the coordinates of the corners of a grid of `size` (height, width)."""
    height, width = size
    return np.array([transform @ place for place in ((0, 0), (width, 0), (0, height), (width, height))])


def _names(path: Path, field: str | None) -> list[str]:
    """The class of each area. Raises ImageError."""
    areas = _areas(path)
    if field is None or not len(areas.shapes):
        return [OBJECT] * len(areas.shapes)
    if field not in areas.properties:
        what = f"has no property {shown(field)}, but {listed(list(areas.properties), 8) or 'none'}"
        raise ImageError(path, what, f"give one of these as --label-field.{did_you_mean(field, areas.properties)}")
    names = [_text(value) for value in areas.properties[field]]
    if empty := names.count(""):
        raise ImageError(path, f"has {empty} objects without a value of {field}", "give each its class")
    return names


def _text(value: object) -> str:
    """A property as the name of a class: whole numbers without a point."""
    if value is None or (isinstance(value, float | np.floating) and not np.isfinite(value)):
        return ""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return name_key(str(value).strip())


def _numbers(path: Path, rule: VectorRule) -> npt.NDArray[np.uint8]:
    names = _names(path, rule.field)
    unknown = [name for name in names if rule.number(name) is None]
    if unknown:
        what = f"has {len(unknown)} objects of {listed(sorted(set(map(shown, unknown))))}, which is no class"
        raise ImageError(path, what, f"correct them; the classes are {listed(rule.classes, 8)}")
    return np.array([rule.number(name) for name in names], np.uint8)


def _is_background(name: str) -> bool:
    return name.casefold() == BACKGROUND


def _in_order(name: str) -> tuple[bool, int, str]:
    return (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)


def _areas(path: Path) -> _Areas:
    """The content of a file, read once for each state of it."""
    with named_errors(path):
        state = path.stat()
    return _read(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=64)
def _read(path: Path, changed: int, size: int) -> _Areas:
    del changed, size  # they only tell one state of the file from another
    try:
        import pyogrio
        import shapely
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "geo") from None
    with named_errors(path):
        _check_format(path)
        warnings.filterwarnings("ignore", message="Non closed ring")  # such a ring is refused below
        try:
            layers = [name for name, kind in pyogrio.list_layers(path).tolist() if kind is not None]
            if len(layers) != 1:
                what = f"has {len(layers)} layers of areas ({listed(layers)})"
                raise ImageError(path, what, "save the one that holds the classes as a file of its own")
            meta, _, encoded, columns = pyogrio.raw.read(path, layer=layers[0])
        except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
            raise OSError(str(error)) from error
        try:
            shapes = shapely.from_wkb(encoded)
        except shapely.errors.GEOSException as error:
            raise OSError(str(error)) from error
    kept = ~shapely.is_missing(shapes) & ~shapely.is_empty(shapes)
    wrong = sorted({shape.geom_type for shape in shapes[kept]} - {*_AREAS})
    if wrong:
        raise ImageError(
            path, f"has objects that are {listed(wrong)}, not areas", "draw areas, such as buffers of them"
        )
    properties = {name: values[kept] for name, values in zip(meta["fields"].tolist(), columns, strict=True)}
    return _Areas(shapes[kept], properties, meta["crs"])


def _check_format(path: Path) -> None:
    """Raise ImageError for a file of another format than its suffix says.

    GDAL tries all that it has, by content, and some of them are texts that name other files or addresses to open.
    """
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        start = file.read(4096)
    begins = {
        ".geojson": start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b""),
        ".gpkg": start.startswith(b"SQLite format 3\0") and start[68:72] in (b"GPKG", b"GP10", b"GP11"),
        ".shp": start.startswith(b"\0\0\x27\x0a"),
    }
    if not begins[suffix]:
        raise ImageError(path, f"does not begin as a {_FORMATS[suffix]} file does", "save it as one")


@lru_cache(maxsize=64)
def _converted(path: Path, areas: _Areas, wkt: str) -> Any:
    """The areas of a file in the coordinates of an image."""
    import shapely
    from rasterio._err import CPLE_BaseError
    from rasterio.crs import CRS
    from rasterio.errors import RasterioError
    from rasterio.warp import transform

    if areas.crs is None:
        what = "has no coordinate reference system"
        raise ImageError(path, what, "add it: a .prj next to a Shapefile, or save the file again from a map")
    own, crs = CRS.from_user_input(areas.crs), CRS.from_wkt(wkt)
    if own == crs or not len(areas.shapes):
        return areas.shapes

    def converted(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.column_stack(transform(own, crs, points[:, 0], points[:, 1]))

    try:
        return shapely.transform(areas.shapes, converted)
    except (CPLE_BaseError, RasterioError) as error:
        what = f"has coordinates that do not exist in its {areas.crs[:40]} ({' '.join(str(error).split())})"
        raise ImageError(
            path, what, "write longitude and latitude, or give it its coordinate reference system"
        ) from error


@contextmanager
def _rasterio_errors() -> Iterator[None]:
    """What rasterio and GDAL raise becomes an OSError, which `named_errors` knows."""
    from rasterio.errors import RasterioError

    try:
        yield
    except RasterioError as error:
        raise OSError(str(error)) from error


def _touching(shapes: Any, corners: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which areas meet the box around these corners (4, 2); those without finite coordinates do not."""
    import shapely

    if not len(shapes):
        return np.zeros(0, np.bool_)
    own = shapely.bounds(shapes)
    least, most = corners.min(axis=0), corners.max(axis=0)
    return np.isfinite(own).all(axis=1) & (own[:, :2] < most).all(axis=1) & (own[:, 2:] > least).all(axis=1)
