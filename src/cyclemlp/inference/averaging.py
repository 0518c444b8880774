"""Probabilities averaged over several views of an image, in memory that does not grow with the image's height.

The strips of a view have a height of their own, since a window sees more rows of an image that is made smaller. The
first view sets the pace; each of the others is worked through to the same row and holds back what it has beyond it.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from cyclemlp.data.resampling import FloatArray


def mean_probabilities(views: Sequence[Iterator[FloatArray]]) -> Iterator[FloatArray]:
    """Strips (N, K, rows, W) of the mean over `views` of softmax probabilities.

    Each view gives its logits from top to bottom as strips of its own heights, all of the same image, and does not use
    a strip again. At a time there are one strip of the first view and at most one of each of the others.
    """
    first, *others = views
    followers = [_Rows(strips) for strips in others]

    def averaged(logits: FloatArray) -> FloatArray:
        total = _softmax(logits)
        for follower in followers:
            follower.add_to(total)
        total /= len(views)
        return total

    return map(averaged, first)  # map keeps no strip alive


class _Rows:
    """The probabilities of one view, as many rows at a time as are asked for."""

    def __init__(self, logit_strips: Iterator[FloatArray]) -> None:
        self._probabilities = map(_softmax, logit_strips)
        self._left: FloatArray | None = None

    def add_to(self, total: FloatArray) -> None:
        """Add the next rows to `total` (N, K, rows, W)."""
        filled, wanted = 0, total.shape[2]
        while filled < wanted:
            strip = next(self._probabilities) if self._left is None else self._left
            count = min(strip.shape[2], wanted - filled)
            total[:, :, filled : filled + count] += strip[:, :, :count]
            self._left = strip[:, :, count:].copy() if count < strip.shape[2] else None
            del strip  # so that it is gone before the next one is made
            filled += count


def _softmax(logits: FloatArray) -> FloatArray:
    """Over the classes (N, K, rows, W), in place."""
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    return logits
