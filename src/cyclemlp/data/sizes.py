"""The size at which a network sees an image, as benchmarks state it; without torch, as exported networks need it."""


def size_factor(height: int, width: int, short_side: int | None, long_side: int | None) -> float:
    """What both edges are multiplied by so that the shorter is `short_side`, unless the longer passed `long_side`.

    Without `short_side` the image stays as it is, or shrinks to `long_side` where its longer edge is above it.
    """
    to_short = 1.0 if short_side is None else short_side / min(height, width)
    return to_short if long_side is None else min(to_short, long_side / max(height, width))
