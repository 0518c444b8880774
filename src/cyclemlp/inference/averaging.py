"""Maps averaged over several views of an image, in memory that does not grow with the image's height.

The strips of a view have a height of their own, since a window sees more rows of an image that is downscaled. The first
view sets the pace; each of the others is read up to the same row and holds back what it has beyond it.
"""

from collections.abc import Callable, Iterator, Sequence

from cyclemlp.data.resizing import FloatArray


def mean_of_views(
    views: Sequence[Iterator[FloatArray]], activation: Callable[[FloatArray], FloatArray]
) -> Iterator[FloatArray]:
    """Strips (N, K, rows, W) of the mean over `views`, each passed through `activation` first.

    Each view yields its maps of the same image from top to bottom as strips of its own height, and does not use a strip
    again. At any time there are one strip of the first view and at most one of each other view.
    """
    first, *others = views
    followers = [_Rows(map(activation, strips)) for strips in others]

    def averaged(maps: FloatArray) -> FloatArray:
        total = activation(maps)
        for follower in followers:
            follower.add_to(total)
        total /= len(views)
        return total

    return map(averaged, first)  # map keeps no strip alive


class _Rows:
    """The maps of one view, as many rows at a time as are asked for."""

    def __init__(self, strips: Iterator[FloatArray]) -> None:
        self._strips = strips
        self._left: FloatArray | None = None

    def add_to(self, total: FloatArray) -> None:
        """Add the next rows to `total` (N, K, rows, W)."""
        filled, wanted = 0, total.shape[2]
        while filled < wanted:
            strip = next(self._strips) if self._left is None else self._left
            count = min(strip.shape[2], wanted - filled)
            total[:, :, filled : filled + count] += strip[:, :, :count]
            self._left = strip[:, :, count:].copy() if count < strip.shape[2] else None
            del strip  # so that it is freed before the next one is made
            filled += count
