"""The picture of `cyclemlp bench receptive-field`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.receptive_field import Seen, area_of_energy
from cyclemlp.errors import MissingExtraError
from cyclemlp.files import atomic_write

DECADES = 4
"""Energies below the highest by more than so many powers of ten are drawn alike."""


def draw_heat_maps(seen: Sequence[Seen], path: Path) -> None:
    """The networks side by side, each relative to its own highest energy, on a logarithmic scale.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "train") from error
    figure = Figure(figsize=(3.4 * len(seen) + 0.8, 4), layout="constrained")
    row = figure.subplots(1, len(seen), squeeze=False)[0]
    for axes, each in zip(row, seen, strict=True):
        relative = np.log10(np.maximum(each.heat / each.heat.max(), 10.0**-DECADES))
        shown = axes.imshow(relative, cmap="magma", vmin=-DECADES, vmax=0)
        weights = "random weights" if each.random_weights else "trained"
        half, most = (area_of_energy(each.heat, share) for share in (0.5, 0.95))
        axes.set_title(f"{Path(each.model).name}\n{weights}", fontsize=9)
        axes.set_xlabel(f"50 % of the energy in {half:.1%} of the area\n95 % in {most:.1%}", fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.colorbar(shown, ax=row.tolist(), label="energy over the highest, power of ten", shrink=0.7)
    with atomic_write(path) as part:
        figure.savefig(part, dpi=130)
