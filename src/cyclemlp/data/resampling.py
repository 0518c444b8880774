"""Bilinear resizing of arrays, the same with and without torch."""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


def resize_bilinear(maps: FloatArray, height: int, width: int) -> FloatArray:
    """`maps` (..., H, W) at another size: values are those of torch's bilinear `interpolate`, corners not aligned."""
    if maps.shape[-1] * height <= maps.shape[-2] * width:  # the axis that leaves less to do comes first
        return _along(_along(maps, height, -2), width, -1)
    return _along(_along(maps, width, -1), height, -2)


def _along(maps: FloatArray, length: int, axis: int) -> FloatArray:
    given = maps.shape[axis]
    if given == length:
        return maps
    places = np.maximum((np.arange(length) + 0.5) * (given / length) - 0.5, 0)
    before = places.astype(np.intp)
    after = np.minimum(before + 1, given - 1)
    share = (places - before).astype(np.float32)
    if axis == -2:
        share = share[:, None]
    out: FloatArray = np.take(maps, after, axis)
    lower = np.take(maps, before, axis)
    out -= lower
    out *= share
    out += lower
    return out
