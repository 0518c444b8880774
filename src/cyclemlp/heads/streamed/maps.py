"""Maps of an image that does not fit into memory: any window of what a layer returns for the whole image.

A `Map` computes a window when it is read. It reads the map before it at exactly the positions that the window follows
from, and outside the map there are the zeros of the layer's own padding. So a window holds what the map of the whole
image has there: there are no seams, at any size of window. A `Sheet` is a map that is kept in a temporary file.

Windows are channels-first as the heads have them, (1, channels, rows, columns), and channels-last in memory.
"""

import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from math import ceil, isqrt, prod

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclemlp.heads.streamed.resampling import Taps, gathered
from cyclemlp.models.forms.fused import OrderedConv

Span = tuple[int, int]
"""The first position along an axis, and the one after the last."""
Size = tuple[int, int]
"""Height and width."""
TILE_VALUES = 2**21
"""Values of a window that is computed at once: 8 MB, and several times that for what is between."""


class Map(ABC):
    """What a layer returns for the whole image."""

    def __init__(self, size: Size, channels: int) -> None:
        self.size, self.channels = size, channels

    @abstractmethod
    def read(self, rows: Span, columns: Span) -> Tensor:
        """A window inside the map, (1, channels, rows, columns)."""

    def padded(self, rows: Span, columns: Span) -> Tensor:
        """A window that may reach over the border, with zeros outside."""
        inside = [clipped(span, length) for span, length in zip((rows, columns), self.size, strict=True)]
        x = self.read(*inside)
        (top, bottom), (left, right) = (
            (own[0] - span[0], span[1] - own[1]) for span, own in zip((rows, columns), inside, strict=True)
        )
        return F.pad(x, (left, right, top, bottom)) if top or bottom or left or right else x


def clipped(span: Span, length: int) -> Span:
    """The part of a span that lies on an axis of this length."""
    return max(span[0], 0), min(span[1], length)


def widened(span: Span, reach: int, length: int) -> Span:
    """A span with `reach` more positions on both sides, as far as there are any."""
    return clipped((span[0] - reach, span[1] + reach), length)


def tiles(size: Size, channels: int) -> Iterator[tuple[Span, Span]]:
    """Windows of about `TILE_VALUES` that cover a map, row by row."""
    edge = max(8, isqrt(TILE_VALUES // channels))
    for rows in spans(size[0], edge):
        for columns in spans(size[1], edge):
            yield rows, columns


def spans(length: int, edge: int) -> Iterator[Span]:
    """An axis in spans of `edge`; the last one may be shorter."""
    return ((start, min(start + edge, length)) for start in range(0, length, edge))


def tile_count(size: Size, channels: int) -> int:
    """The number of `tiles`."""
    edge = max(8, isqrt(TILE_VALUES // channels))
    return prod(ceil(length / edge) for length in size)


class Sheet(Map):
    """A map that is kept in a temporary file without a name, which is gone with the program however that ends."""

    def __init__(self, size: Size, channels: int, device: torch.device) -> None:
        super().__init__(size, channels)
        self._device = device
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  closed with the sheet
        weakref.finalize(self, self._file.close)

    def write(self, rows: Span, columns: Span, values: Tensor) -> None:
        """Keep a window (1, channels, rows, columns). Raises OSError where the disk is full."""
        lines = values.permute(0, 2, 3, 1)[0].float().cpu().contiguous().numpy()
        for line, place in self._lines(lines, rows, columns):
            self._file.seek(place)
            data = line.data.cast("B")
            while len(data):
                data = data[self._file.write(data) :]

    def read(self, rows: Span, columns: Span) -> Tensor:
        lines = np.empty((rows[1] - rows[0], columns[1] - columns[0], self.channels), np.float32)
        for line, place in self._lines(lines, rows, columns):
            self._file.seek(place)
            data = line.data.cast("B")
            while len(data):
                if not (count := self._file.readinto(data)):
                    raise EOFError(f"{self.size} map: read before it was written")
                data = data[count:]
        return torch.from_numpy(lines).to(self._device)[None].permute(0, 3, 1, 2)

    def _lines(
        self, values: npt.NDArray[np.float32], rows: Span, columns: Span
    ) -> Iterator[tuple[npt.NDArray[np.float32], int]]:
        """The parts of a window that are together in the file, and where."""
        bytes_of_a_row = 4 * self.channels * self.size[1]
        if columns == (0, self.size[1]):
            yield values, rows[0] * bytes_of_a_row
            return
        for number, line in enumerate(values, start=rows[0]):
            yield line, number * bytes_of_a_row + 4 * self.channels * columns[0]


class Constant(Map):
    """A small map that is in memory, (1, channels, height, width)."""

    def __init__(self, values: Tensor) -> None:
        super().__init__((values.shape[2], values.shape[3]), values.shape[1])
        self._values = values

    def read(self, rows: Span, columns: Span) -> Tensor:
        return self._values[:, :, rows[0] : rows[1], columns[0] : columns[1]].clone()


class Pointwise(Map):
    """A layer that looks at each position alone."""

    def __init__(self, source: Map, layer: Callable[[Tensor], Tensor], channels: int | None = None) -> None:
        super().__init__(source.size, channels or source.channels)
        self._source, self._layer = source, layer

    def read(self, rows: Span, columns: Span) -> Tensor:
        return self._layer(self._source.read(rows, columns))


class Convolved(Map):
    """A convolution, with its own padding at the border of the image alone."""

    def __init__(self, source: Map, conv: nn.Conv2d | OrderedConv) -> None:
        if isinstance(conv, nn.Conv2d):
            self._weight, self._groups = conv.weight, conv.groups
        else:
            self._weight, self._groups = conv.weight_ohwi.permute(0, 3, 1, 2), 1
        steps = [_pair(conv.stride), _pair(conv.padding), _pair(conv.dilation)]
        self._axes = [(s, p, d, d * (k - 1) + 1) for k, s, p, d in zip(self._weight.shape[2:], *steps, strict=True)]
        height, width = (
            (length + 2 * p - reach) // s + 1 for length, (s, p, _, reach) in zip(source.size, self._axes, strict=True)
        )
        super().__init__((height, width), self._weight.shape[0])
        self._source, self._bias = source, conv.bias

    def read(self, rows: Span, columns: Span) -> Tensor:
        needed = [
            (span[0] * s - p, (span[1] - 1) * s - p + reach)
            for span, (s, p, _, reach) in zip((rows, columns), self._axes, strict=True)
        ]
        stride, dilation = [s for s, *_ in self._axes], [d for _, _, d, _ in self._axes]
        x = self._source.padded(*needed)
        return F.conv2d(x, self._weight, self._bias, stride, 0, dilation, self._groups)


def _pair(value: "int | str | Sequence[int]") -> Sequence[int]:
    if isinstance(value, str):
        raise TypeError(f"padding {value!r} is not a number")
    return (value, value) if isinstance(value, int) else value


class Resampled(Map):
    """A map at another size; `taps` says which positions of an axis make a position of the new one."""

    def __init__(self, source: Map, size: Size, taps: Taps) -> None:
        super().__init__(size, source.channels)
        self._source, self._taps = source, taps

    def read(self, rows: Span, columns: Span) -> Tensor:
        axes = [
            self._taps(given, length, span)
            for given, length, span in zip(self._source.size, self.size, (rows, columns), strict=True)
        ]
        firsts = [int(places.min()) for places, _ in axes]
        needed = [(first, int(places.max()) + 1) for first, (places, _) in zip(firsts, axes, strict=True)]
        x_nhwc = self._source.read(*needed).permute(0, 2, 3, 1)
        for dim, first, (places, shares) in zip((1, 2), firsts, axes, strict=True):
            x_nhwc = gathered(x_nhwc, dim, places - first, shares)
        return x_nhwc.permute(0, 3, 1, 2)


def resampled(source: Map, size: Size, taps: Taps) -> Map:
    """The map at this size, itself where it has it."""
    return source if source.size == size else Resampled(source, size, taps)


class Cropped(Map):
    """The upper left part of a map."""

    def __init__(self, source: Map, size: Size) -> None:
        super().__init__(size, source.channels)
        self._source = source

    def read(self, rows: Span, columns: Span) -> Tensor:
        return self._source.read(rows, columns)


class Summed(Map):
    """The sum of maps of one size."""

    def __init__(self, *sources: Map) -> None:
        super().__init__(sources[0].size, sources[0].channels)
        self._sources = sources

    def read(self, rows: Span, columns: Span) -> Tensor:
        first, *others = self._sources
        total = first.read(rows, columns)
        for source in others:
            total = total + source.read(rows, columns)
        return total


class Joined(Map):
    """Maps of one size one after the other along the channels."""

    def __init__(self, sources: Sequence[Map]) -> None:
        super().__init__(sources[0].size, sum(source.channels for source in sources))
        self._sources = sources

    def read(self, rows: Span, columns: Span) -> Tensor:
        return torch.cat([source.read(rows, columns) for source in self._sources], 1)
