"""`cyclemlp bench loader`: whether reading and augmenting pictures keeps up with training."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from cyclemlp.cli.bench_output import aligned, check_out, command_line, deliver
from cyclemlp.errors import ConfigError


def loader(
    data: Path | None = None,
    /,
    *,
    model: str = "cyclemlp_nano",
    size: int = 224,
    batch: int = 32,
    workers: Annotated[tuple[int, ...], Parameter(consume_multiple=True)] = (1, 2),
    rounds: int = 5,
    threads: int | None = None,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Count the images a second that workers read and augment, that a training step takes, and that both do together.

    Step and loader are those of `cyclemlp train classification` with its defaults, and share the pinned cores.

    Parameters
    ----------
    data
        Folder of class folders to read; by default JPEGs of 500x375 pixels are made up for the measurement.
    model
        Trained on them.
    size
        Edge of the square images, in pixels.
    batch
        Images a step.
    workers
        Numbers of processes that read.
    rounds
        Measurements of each; medians are over these.
    threads
        Threads, pinned to as many cores (default 2).
    out
        Also write the JSON to this file, such as results/bench-loader.json.
    json
        Print one JSON object instead of a table.
    """
    from benchmarks.loading import bench_loading
    from benchmarks.rounds import Plan

    check_out(out, "bench-loader.json")
    for option, values in (("--size", (size,)), ("--batch", (batch,)), ("--workers", workers)):
        for value in values:
            if value < 1:
                raise ConfigError(f"{option} {value} is not allowed: 1 or more")
    plan = Plan(rounds=rounds) if threads is None else Plan(rounds=rounds, threads=threads)
    record = bench_loading(plan, data, model, size=size, batch=batch, workers=workers, command=command_line())
    deliver(record, _table(record), out, json)


def _table(record: dict[str, Any]) -> str:
    made = record["environment"]
    head = f"{made['processor']}, {made['threads']} threads, {record['model']} at {record['size']}, images a second"
    rows: list[tuple[str, ...]] = [("workers", "reading alone", "over the step", "while training", "over the step")]
    for count, found in record["workers"].items():
        rates = [(found["alone"], found["over_step"]), (found["training"], found["training_over_step"])]
        rows.append(
            (count, *(text for rate, share in rates for text in (f"{rate['images_per_s']:.0f}", f"{share:.2f}")))
        )
    step = f"a training step on a batch kept in memory: {record['step']['images_per_s']:.0f} images a second"
    return "\n".join([head, "", *aligned(rows), "", step]) + "\n"
