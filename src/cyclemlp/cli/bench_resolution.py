"""`cyclemlp bench resolution`: cost and accuracy against the size of the test images."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from cyclemlp.cli.bench_output import aligned, check_out, command_line, deliver, heading, milliseconds


def resolution(
    names: Annotated[tuple[str, ...], Parameter(negative=())] = ("cyclemlp_b2",),
    /,
    *,
    run: Path | None = None,
    data: Path | None = None,
    split: str = "val",
    size: Annotated[tuple[int, ...], Parameter(consume_multiple=True)] = tuple(range(128, 449, 32)),
    runtime: str = "eager",
    rounds: int = 9,
    threads: int | None = None,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Cost of networks against the size of the test images, as in Figure 5; with a run, its accuracy too.

    Parameters
    ----------
    names
        Models, by their timm names; those for one size are measured at 224 alone.
    run
        Run folder of a classifier, whose accuracy is measured at every size; needs --data.
    data
        Class folders with the classes of the run.
    split
        Which part of the data.
    size
        Edges of the square images, in pixels.
    runtime
        eager, compile, onnx (ONNX Runtime) or openvino.
    rounds
        Measurements of each network and size.
    threads
        Threads, pinned to as many cores (default 2).
    out
        Also write the JSON to this file, such as results/resolution.json, and the picture beside it as .png.
    json
        Print one JSON object instead of a table.
    """
    from benchmarks.models import SAMPLE_SECONDS
    from benchmarks.resolution import accuracies, bench_resolution
    from benchmarks.resolution_picture import draw_resolution
    from benchmarks.rounds import Plan
    from cyclemlp.errors import ConfigError

    check_out(out, "resolution.json")
    if (run is None) != (data is None):
        raise ConfigError("--run and --data belong together: give both for accuracies, or none for cost alone")
    if not size or min(size) < 1:
        raise ConfigError(f"--size {' '.join(map(str, size))} is not allowed: 1 or more")
    plan = Plan(rounds=rounds, sample_seconds=SAMPLE_SECONDS)
    if threads is not None:
        plan = Plan(rounds=rounds, sample_seconds=SAMPLE_SECONDS, threads=threads)
    accuracy = accuracies(run, data, split, size) if run is not None and data is not None else None
    record = bench_resolution(names, size, runtime, plan, command_line()) | {"accuracy": accuracy}
    if out is not None:
        draw_resolution(record, out.with_suffix(".png"))
    deliver(record, _table(record), out, json)


def _table(record: dict[str, Any]) -> str:
    rows: list[tuple[str, ...]] = [("model", "image", "FLOPs G", "ms")]
    for curve in record["curves"]:
        for point in curve["points"]:
            timing = milliseconds(point["runtimes"][record["runtime"]], 1)
            rows.append((point["model"], str(point["size"]), f"{point['flops'] / 1e9:.2f}", timing))
    notes = [curve["note"] for curve in record["curves"] if curve["note"]]
    lines = [heading(record), "", *aligned(rows), *notes]
    if record["accuracy"] is not None:
        ours = record["accuracy"]
        shown = [(str(each["size"]), f"{100 * each['top1']:.2f}") for each in ours["points"]]
        lines += ["", f"run {ours['run']} on {ours['images']} images", *aligned([("image", "top-1 %"), *shown])]
    return "\n".join(lines) + "\n"
