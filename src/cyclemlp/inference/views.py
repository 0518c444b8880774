"""The views of an image whose predictions are combined: test-time augmentation.

Maps are averaged in memory that does not grow with the image's height. The strips of a view have a height of their
own, since a window sees more rows of an image that is downscaled. The first view sets the pace; each of the others is
read up to the same row and holds back what it has beyond it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from cyclemlp.data.resizing import FloatArray
from cyclemlp.errors import ConfigError
from cyclemlp.tasks.looks import View

MIN_SCALE, MAX_SCALE = 0.1, 8.0


@dataclass(frozen=True)
class Views:
    """The scales and flips at which an image is seen. Raises ConfigError for scales that are not usable."""

    scales: tuple[float, ...] = (1.0,)
    """Factors on the size at which the network usually sees images."""
    flip: bool = False
    """Whether each scale is seen mirrored left to right as well."""

    def __post_init__(self) -> None:
        sound = all(MIN_SCALE <= scale <= MAX_SCALE for scale in self.scales)
        if not self.scales or not sound or len(set(self.scales)) < len(self.scales):
            given = " ".join(f"{scale:g}" for scale in self.scales)
            allowed = f"different factors from {MIN_SCALE:g} to {MAX_SCALE:g}"
            raise ConfigError(f"--scales {given}: {allowed}, such as 0.5 0.75 1 1.25 1.5 1.75")

    def __iter__(self) -> Iterator[View]:
        return (View(scale, flipped) for scale in self.scales for flipped in (False, True)[: 1 + self.flip])

    @property
    def plain(self) -> bool:
        """Whether an image is seen once, unchanged."""
        return self == PLAIN

    @property
    def single(self) -> bool:
        """Whether an image is seen once, at whatever scale, so that its windows can be predicted one by one."""
        return len(self.scales) == 1 and not self.flip

    def to_dict(self) -> dict[str, list[float] | bool]:
        """As JSON values."""
        return {"scales": list(self.scales), "flip": self.flip}


PLAIN = Views()


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
