"""From the classes of a raster to polygons, strip by strip, in memory that does not grow with the number of polygons.

GDAL follows the outlines in a strip. Those that reach the strip below wait for what they are part of there, and are
joined when nothing below touches them any more, so that nothing is cut at a strip. One polygon is held whole.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cyclemlp.data.features import feature_file, on_map
from cyclemlp.data.gdal import quiet
from cyclemlp.data.images import Pixels
from cyclemlp.data.scenes import Place
from cyclemlp.data.windows import strips_of
from cyclemlp.errors import MissingExtraError


def write_polygons(
    raster: Path, out: Path, place: Place, classes: tuple[str, ...], left_out: Collection[int], simplify: float
) -> None:
    """The connected pixels of each class in `raster` as polygons with `class`, `class_id` and `area`, holes kept.

    Pixels that touch at a corner are not connected. Areas are those of the pixels, in the squared unit of the
    coordinates; `area_m2` is there where `place` knows it. `simplify` is the most, in pixels, by which an outline may
    move. GeoJSON is in longitude and latitude (RFC 7946) where the raster has a coordinate system, GeoPackage in that
    of the raster. Raises MissingExtraError.
    """
    try:
        import rasterio
        import rasterio.features
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "geo") from error
    types: dict[str, Any] = {"class": object, "class_id": np.int32, "area": np.float64}
    if place.pixel_area is not None:
        types["area_m2"] = np.float64
    pixel = abs(place.transform.determinant)
    with quiet(), rasterio.open(raster) as source, feature_file(out, raster.stem, place, types) as features:
        for shape, value in polygons(_rows(source), left_out):
            area = float(shape.area)
            simple = shape.simplify(simplify) if simplify else shape
            measured = (area * pixel,) if place.pixel_area is None else (area * pixel, area * place.pixel_area)
            features.add(on_map(simple, place), classes[value], value, *measured)


def _rows(source: Any) -> Iterator[Pixels]:
    from rasterio.windows import Window

    for window in strips_of(source.shape):
        yield source.read(1, window=Window.from_slices(*window))


@dataclass(eq=False)
class _Group:
    """Pieces of one polygon from the strips so far."""

    value: int
    pieces: list[Any]
    part_of: "_Group | None" = None

    def whole(self) -> "_Group":
        """The group that it has become a part of, or itself."""
        group = self
        while group.part_of is not None:
            group = group.part_of
        return group

    def join(self, other: "_Group") -> None:
        """Make it one polygon with another."""
        own, theirs = self.whole(), other.whole()
        if own is not theirs:
            own.pieces += theirs.pieces
            theirs.pieces, theirs.part_of = [], own

    def polygon(self) -> Any:
        """Its pieces as one, without points where they met."""
        import shapely

        return self.pieces[0] if len(self.pieces) == 1 else shapely.union_all(self.pieces).simplify(0)


def polygons(strips: Iterable[Pixels], left_out: Collection[int] = ()) -> Iterator[tuple[Any, int]]:
    """The polygons of a raster, given from top to bottom as strips (rows, width), and the value of each.

    They are shapely's, in (column, row), and come as soon as no later strip can touch them.
    """
    top = 0
    waiting: dict[int, _Group] = {}
    bottom = np.zeros(0, np.intp)
    for strip in strips:
        found = list(_outlines(strip, top, left_out))
        groups = [_Group(value, [shape]) for shape, value in found]
        first, last = (_at_row(found, row, strip.shape[1]) for row in (top, top + len(strip) - 1))
        for old, new in np.unique(np.stack([bottom, first]), axis=1).T.tolist() if waiting else ():
            if old >= 0 <= new and waiting[old].value == groups[new].value:
                waiting[old].join(groups[new])
        before = [*waiting.values(), *groups]
        waiting = {number: groups[number] for number in np.unique(last).tolist() if number >= 0}
        still = {id(group.whole()) for group in waiting.values()}
        for group in dict.fromkeys(each.whole() for each in before):
            if id(group) not in still:
                yield group.polygon(), group.value
        top, bottom = top + len(strip), last
    for group in dict.fromkeys(each.whole() for each in waiting.values()):
        yield group.polygon(), group.value


def _outlines(strip: Pixels, top: int, left_out: Collection[int]) -> Iterator[tuple[Any, int]]:
    """The polygons of a strip that begins at this row."""
    import shapely.geometry
    from rasterio import Affine
    from rasterio.features import shapes

    shown = ~np.isin(strip, list(left_out))
    if not shown.any():
        return
    for outline, value in shapes(strip, mask=shown, connectivity=4, transform=Affine.translation(0, top)):
        yield shapely.geometry.shape(outline), int(value)


def _at_row(found: Sequence[tuple[Any, int]], row: int, width: int) -> npt.NDArray[np.intp]:
    """Which of the polygons has each pixel of a row; -1 for none."""
    from rasterio import Affine
    from rasterio.features import rasterize

    reaching = [
        (shape, number + 1) for number, (shape, _) in enumerate(found) if shape.bounds[1] <= row < shape.bounds[3]
    ]
    if not reaching:
        return np.full(width, -1, np.intp)
    drawn = rasterize(reaching, (1, width), transform=Affine.translation(0, row), dtype="int32")
    return drawn[0].astype(np.intp) - 1
