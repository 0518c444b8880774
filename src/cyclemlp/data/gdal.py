"""GDAL, by rasterio (extra `geo`), with bounded memory and without warnings about files that lie nowhere."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

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
