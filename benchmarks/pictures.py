"""Pictures of benchmark records."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cyclemlp.errors import MissingExtraError
from cyclemlp.files import atomic_write


def draw_pareto(record: Mapping[str, Any], path: Path) -> None:
    """Published accuracy against measured latency, as `path`'s suffix says (.svg, .png, .pdf).

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure, (axes,) = _axes("latency at 224x224, batch 1, ms", "ImageNet-1K top-1, %, as published")
    for point in record["pareto"]:
        ours = point["model"].startswith("cyclemlp")
        axes.plot(1e3 * point["s"], point["top1"], "o" if ours else "s", color="tab:blue" if ours else "tab:gray")
        at, name = (1e3 * point["s"], point["top1"]), point["model"].split("_patch")[0]
        axes.annotate(name, at, xytext=(5, 4), textcoords="offset points")
    axes.margins(x=0.3, y=0.1)  # room for the names
    _save(figure, path)


def draw_scale(record: Mapping[str, Any], path: Path) -> None:
    """Time and memory of a forward pass against the image's edge, both axes logarithmic, as `path`'s suffix says.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure, (times, memory) = _axes("edge of the image, pixels", "time of a forward pass, s", "memory it takes, MB")
    for name, curve in record["models"].items():
        points = [point for point in curve["points"] if point["forward_bytes"]]
        times.loglog([p["size"] for p in curve["points"]], [p["median_s"] for p in curve["points"]], "o-", label=name)
        memory.loglog([p["size"] for p in points], [p["forward_bytes"] / 1e6 for p in points], "o-", label=name)
    sizes = sorted({point["size"] for curve in record["models"].values() for point in curve["points"]})
    for axes in (times, memory):
        axes.minorticks_off()
        axes.set_xticks(sizes, list(map(str, sizes)))
    times.legend()
    _save(figure, path)


def _axes(x: str, *ys: str) -> tuple[Any, list[Any]]:
    """A figure with a plot side by side for each of `ys`."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "train") from error
    figure = Figure(figsize=(1 + 6 * len(ys), 4.5), layout="constrained")
    plots = list(figure.subplots(1, len(ys), squeeze=False)[0])
    for axes, y in zip(plots, ys, strict=True):
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.grid(alpha=0.3)
    return figure, plots


def _save(figure: Any, path: Path) -> None:
    with atomic_write(path) as part:
        figure.savefig(part)
