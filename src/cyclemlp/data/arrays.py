"""Images and masks that are arrays of numpy, in `.npy` and `.npz` files."""

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cyclemlp.data.image_errors import MAX_BANDS, ImageError, check_bytes, check_pixels, named_errors, too_many_bands


def read_array(path: Path) -> npt.NDArray[Any]:
    """The array in a file of numpy, (height, width, bands); `.npy` files are mapped into memory, not read.

    Raises ImageError for an unusable file, one with several arrays, and an array of another shape.
    """
    with named_errors(path):
        check_bytes(path)
        if zipfile.is_zipfile(path):
            loaded = _unpacked(path)
        else:
            loaded = np.lib.format.open_memmap(path, mode="r")
            _check_shape(path, loaded.shape)
        return loaded[..., None] if loaded.ndim == 2 else loaded


def _unpacked(path: Path) -> npt.NDArray[Any]:
    """The array in an archive of one, whose header is read before memory is taken for its values."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if len(names) != 1:
            raise ImageError(path, f"has {len(names)} arrays, and an image is one", "save each as a file of its own")
        with archive.open(names[0]) as file:
            reads_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, _, dtype = reads_header[np.lib.format.read_magic(file)](file)
            _check_shape(path, shape)
            if math.prod(shape) * dtype.itemsize > archive.getinfo(names[0]).file_size:
                raise ImageError(path, f"lacks a part of its values of shape {shape}", "replace or remove it")
        with archive.open(names[0]) as file:
            return np.lib.format.read_array(file, allow_pickle=False)


def _check_shape(path: Path, shape: tuple[int, ...]) -> None:
    if len(shape) not in (2, 3) or not math.prod(shape):
        what = f"holds an array of shape {shape}, and an image is (height, width) or (height, width, bands)"
        raise ImageError(path, what, "save it in that order")
    check_pixels(path, shape[0] * shape[1])
    if len(shape) == 3 and shape[2] > MAX_BANDS:
        raise too_many_bands(path, shape[2])
