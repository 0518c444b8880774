"""GDAL, by rasterio (extra `geo`), with bounded memory and without warnings about files that lie nowhere."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cyclemlp.errors import MissingExtraError

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

TIFF, JPEG2000 = "GTiff", "JP2OpenJPEG"
"""GDAL's names of its readers: no other is tried, since some of them open further files that a text names."""
_CACHE_BYTES = 2**27
"""What GDAL may keep of files that are open."""


@contextmanager
def quiet() -> Iterator[None]:
    """Rasterio without its warning about files that have no place on the Earth, and with bounded memory."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


@contextmanager
def opened_raster(path: Path, driver: str) -> "Iterator[DatasetReader]":
    """The opened file, not yet decoded. Raises OSError for a damaged one, MissingExtraError without rasterio."""
    try:
        import rasterio
        from rasterio.errors import RasterioError
    except ModuleNotFoundError:
        raise MissingExtraError("rasterio", "geo") from None
    path.open("rb").close()  # whose errors say why
    with quiet():
        try:
            with rasterio.open(path, driver=driver) as source:
                yield source
        except UnicodeEncodeError as error:
            raise OSError("GDAL opens no file whose name is not UTF-8") from error
        except RasterioError as error:
            raise OSError(str(error)) from error


def described_bands(source: "DatasetReader") -> tuple[tuple[str, ...], int | None]:
    """The names of the bands of an open raster, where all have one, and the place of the one marked as transparency."""
    from rasterio.enums import ColorInterp

    names = tuple(each or "" for each in source.descriptions)
    marked = [place for place, each in enumerate(source.colorinterp) if each is ColorInterp.alpha]
    return names if all(names) else (), marked[0] if marked else None


def masked_by_file(source: "DatasetReader", **part: Any) -> npt.NDArray[np.bool_] | None:
    """Where a mask page, or a mask file of the raster's name, hides pixels of an open raster; None without one."""
    from rasterio.enums import MaskFlags

    flags = source.mask_flag_enums[0]
    if MaskFlags.per_dataset not in flags or MaskFlags.alpha in flags:
        return None
    hidden: npt.NDArray[np.bool_] = source.read_masks(1, **part) == 0
    return hidden
