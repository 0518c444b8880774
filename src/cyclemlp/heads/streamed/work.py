"""Maps that are computed once and kept, window by window, and the means over the whole image that they need."""

import weakref
from collections.abc import Callable, Iterator, Sequence

import torch

from cyclemlp.heads.streamed.maps import Map, Sheet, Span, tile_count, tiles
from cyclemlp.heads.streamed.statistics import Gathered, ImageMean


class Work:
    """Computes maps and keeps them on disk; `advance` is told of every window."""

    def __init__(self, device: torch.device, advance: Callable[[int], object]) -> None:
        self.device, self._advance = device, advance

    def kept(self, source: Map, means: Sequence[ImageMean] = ()) -> Map:
        """The map as a sheet. Where layers of it need means over the image, a pass for each of them goes before."""
        while not all(mean.known for mean in means):
            self._gather(source)
        sheet = Sheet(source.size, source.channels, self.device)
        for rows, columns in self.windows_of(source):
            sheet.write(rows, columns, source.read(rows, columns))
        return sheet

    def windows_of(self, source: Map) -> Iterator[tuple[Span, Span]]:
        """Windows that cover a map, for a pass over it."""
        for window in tiles(source.size, source.channels):
            yield window
            self._advance(1)

    def _gather(self, source: Map) -> None:
        """A pass for the first mean that is not known."""
        found: ImageMean | None = None
        for rows, columns in self.windows_of(source):
            try:
                source.read(rows, columns)
            except Gathered as gathered:
                found = gathered.mean
        assert found is not None  # a mean that no layer asks for would never be known
        found.finish()


class Estimate(Work):
    """Computes nothing: counts the windows that there will be, and the bytes of the sheets that are there together."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"), lambda _: None)
        self.windows = self.peak_bytes = self._bytes = 0

    def kept(self, source: Map, means: Sequence[ImageMean] = ()) -> Map:
        self.windows += (1 + len(means)) * tile_count(source.size, source.channels)
        sheet = _Unread(source.size, source.channels)
        self._add(4 * source.size[0] * source.size[1] * source.channels)
        weakref.finalize(sheet, self._add, -4 * source.size[0] * source.size[1] * source.channels)
        return sheet

    def windows_of(self, source: Map) -> Iterator[tuple[Span, Span]]:
        self.windows += tile_count(source.size, source.channels)
        return iter(())

    def _add(self, count: int) -> None:
        self._bytes += count
        self.peak_bytes = max(self.peak_bytes, self._bytes)


class _Unread(Map):
    def read(self, rows: Span, columns: Span) -> torch.Tensor:
        raise NotImplementedError("an estimate reads no maps")
