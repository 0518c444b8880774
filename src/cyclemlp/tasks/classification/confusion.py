"""The confusion matrix as a drawing and as a table in a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cyclemlp.data.lettering import drawn_name, families_of
from cyclemlp.errors import MissingExtraError
from cyclemlp.files import write_csv

if TYPE_CHECKING:
    import numpy.typing as npt
    from matplotlib.figure import Figure

CONFUSION_NAME = "confusion.csv"
MAX_NUMBERED = 20
"""With more classes the cells carry no numbers."""
MAX_NAMED = 60


def write_confusion(folder: Path, counts: "npt.NDArray[np.int64]", classes: Sequence[str]) -> "Figure":
    """Write the counts (K, K) as a table, a row for each class and a column for each prediction, and draw them.

    In the figure, colour is the share of a row's images, and numbers are images.
    """
    rows = [[name, *row] for name, row in zip(classes, counts.tolist(), strict=True)]
    write_csv(folder / CONFUSION_NAME, [["class", *classes], *rows])
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "train") from error
    edge = min(11.0, 2.6 + 0.45 * len(classes))
    figure = Figure(figsize=(edge, edge), layout="constrained")
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    axes.set(xlabel="predicted", ylabel="is")
    if len(classes) <= MAX_NAMED:
        names = [drawn_name(name, number) for number, name in enumerate(classes)]
        axes.set_xticks(range(len(classes)), names, rotation=90)
        axes.set_yticks(range(len(classes)), names)
        for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
            label.set_parse_math(False)  # names of classes are no formulas
            label.set_fontfamily(families_of(names))
    if len(classes) <= MAX_NUMBERED:
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize="small")
    return figure
