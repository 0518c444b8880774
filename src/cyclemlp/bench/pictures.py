"""Pictures of benchmark records."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cyclemlp.errors import MissingExtraError
from cyclemlp.files import whole_file


def draw_pareto(record: Mapping[str, Any], path: Path) -> None:
    """Published accuracy against measured latency, as `path`'s suffix says (.svg, .png, .pdf).

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure, axes = _axes("latency at 224x224, batch 1, ms", "ImageNet-1K top-1, %, as published")
    for point in record["pareto"]:
        ours = point["model"].startswith("cyclemlp")
        axes.plot(1e3 * point["s"], point["top1"], "o" if ours else "s", color="tab:blue" if ours else "tab:gray")
        at, name = (1e3 * point["s"], point["top1"]), point["model"].split("_patch")[0]
        axes.annotate(name, at, xytext=(5, 4), textcoords="offset points")
    _save(figure, path)


def _axes(x: str, y: str) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "train") from error
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    with whole_file(path) as part:
        figure.savefig(part)
