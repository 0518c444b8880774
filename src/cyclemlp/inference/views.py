"""The views of an image whose predictions become one: test-time augmentation."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from cyclemlp.errors import ConfigError

SMALLEST, LARGEST = 0.1, 8.0


class View(NamedTuple):
    """One look at an image."""

    scale: float
    """Factor on the size at which the network sees images otherwise."""
    flipped: bool
    """Whether it is mirrored left to right."""


@dataclass(frozen=True)
class Views:
    """How often and how an image is looked at; raises ConfigError for scales that make no sense."""

    scales: tuple[float, ...] = (1.0,)
    """Factors on the size at which the network sees images otherwise."""
    flip: bool = False
    """Whether each is seen mirrored left to right as well."""

    def __post_init__(self) -> None:
        sound = all(SMALLEST <= scale <= LARGEST for scale in self.scales)
        if not self.scales or not sound or len(set(self.scales)) < len(self.scales):
            given = " ".join(f"{scale:g}" for scale in self.scales)
            allowed = f"different factors from {SMALLEST:g} to {LARGEST:g}"
            raise ConfigError(f"--scales {given}: {allowed}, such as 0.5 0.75 1 1.25 1.5 1.75")

    def __iter__(self) -> Iterator[View]:
        return (View(scale, flipped) for scale in self.scales for flipped in (False, True)[: 1 + self.flip])

    def __len__(self) -> int:
        return len(self.scales) * (1 + self.flip)

    @property
    def plain(self) -> bool:
        """Whether an image is seen once, as it is."""
        return self == PLAIN

    def to_dict(self) -> dict[str, list[float] | bool]:
        """As JSON values."""
        return {"scales": list(self.scales), "flip": self.flip}


PLAIN = Views()
