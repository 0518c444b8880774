"""Bilinear resizing of arrays, the same with and without torch."""

import math

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


def resize_bilinear(maps: FloatArray, height: int, width: int, *, antialias: bool = False) -> FloatArray:
    """`maps` (..., H, W) at another size: values are those of torch's bilinear `interpolate`, corners not aligned.

    With `antialias` every pixel of a downscaled image is a mean over all pixels that it covers, as in training;
    without, it is read between two of them.
    """
    if maps.shape[-1] * height <= maps.shape[-2] * width:  # the axis that leaves less to do comes first
        return _along(_along(maps, height, -2, antialias), width, -1, antialias)
    return _along(_along(maps, width, -1, antialias), height, -2, antialias)


def _along(maps: FloatArray, length: int, axis: int, antialias: bool) -> FloatArray:
    given = maps.shape[axis]
    if given == length:
        return maps
    return _averaged(maps, length, axis) if antialias and length < given else _interpolated(maps, length, axis)


def _interpolated(maps: FloatArray, length: int, axis: int) -> FloatArray:
    given = maps.shape[axis]
    places = np.maximum((np.arange(length) + 0.5) * (given / length) - 0.5, 0)
    before = places.astype(np.intp)
    after = np.minimum(before + 1, given - 1)
    share = _along_axis((places - before).astype(np.float32), axis)
    out = np.take(maps, after, axis)
    lower = np.take(maps, before, axis)
    out -= lower
    out *= share
    out += lower
    return out


def _averaged(maps: FloatArray, length: int, axis: int) -> FloatArray:
    """Each pixel is a mean under a triangle that is as wide as two of the new pixels."""
    given = maps.shape[axis]
    scale = given / length
    centres = (np.arange(length) + 0.5) * scale
    taps = np.floor(centres - scale).astype(np.intp) + np.arange(2 * math.ceil(scale) + 1)[:, None]
    weights = np.maximum(1 - np.abs(taps + 0.5 - centres) / scale, 0) * ((taps >= 0) & (taps < given))
    weights /= weights.sum(axis=0)
    out = np.zeros((*maps.shape[:axis], length, *maps.shape[axis:][1:]), dtype=np.float32)
    for places, shares in zip(taps.clip(0, given - 1), weights.astype(np.float32), strict=True):
        part = np.take(maps, places, axis)
        part *= _along_axis(shares, axis)
        out += part
    return out


def _along_axis(values: FloatArray, axis: int) -> FloatArray:
    return values[:, None] if axis == -2 else values
