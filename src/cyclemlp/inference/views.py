"""The views of an image whose predictions are combined: test-time augmentation."""

from collections.abc import Iterator
from dataclasses import dataclass

from cyclemlp.errors import ConfigError
from cyclemlp.tasks.base import View

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

    def __len__(self) -> int:
        return len(self.scales) * (1 + self.flip)

    @property
    def plain(self) -> bool:
        """Whether an image is seen once, unchanged."""
        return self == PLAIN

    def to_dict(self) -> dict[str, list[float] | bool]:
        """As JSON values."""
        return {"scales": list(self.scales), "flip": self.flip}


PLAIN = Views()
