"""GeoTIFFs as tests write them."""

from pathlib import Path
from typing import Any

import numpy as np

UTM = "EPSG:32633"


def write_geotiff(
    path: Path,
    values: np.ndarray,
    *,
    step: float = 10.0,
    origin: tuple[float, float] = (500_000.0, 5_400_000.0),
    crs: str | None = UTM,
    **more: Any,
) -> Path:
    """(height, width) or (height, width, bands) with pixels of `step` units, north up; `more` may have a driver."""
    import rasterio

    values = values if values.ndim == 3 else values[..., None]
    height, width, bands = values.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": bands, "dtype": values.dtype, "crs": crs}
    profile |= more
    profile["transform"] = rasterio.Affine(step, 0, origin[0], 0, -step, origin[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", **profile) as target:
        target.write(np.moveaxis(values, -1, 0))
    return path
