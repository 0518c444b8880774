"""`cyclemlp bench train`: one training step of a whole network."""

from pathlib import Path
from typing import Any

from cyclemlp.cli.bench_output import SPREAD_NOTE, aligned, check_out, command_line, deliver, heading, milliseconds
from cyclemlp.cli.bench_output import ratio as shown_ratio
from cyclemlp.errors import ConfigError


def train(
    model: str = "cyclemlp_b2",
    /,
    *,
    rival: tuple[str, ...] = ("swin_tiny_patch4_window7_224",),
    size: int = 224,
    batch: int = 8,
    checkpoint_activations: bool = False,
    compile: bool = False,  # noqa: A002
    rounds: int = 5,
    threads: int | None = None,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Time a training step (forward, loss, backward, AdamW) with our operator and the authors', and what it holds.

    Step memory is the most resident during the second step less what was resident before it, with weights, gradients,
    optimiser state and images there already; kept memory is what autograd keeps of the forward pass.

    Parameters
    ----------
    model
        One of this package's models.
    rival
        Measured beside it.
    size
        Edge of the square images, in pixels.
    batch
        Images a step.
    checkpoint_activations
        Also measure ours with the blocks' activations computed again in the backward pass.
    compile
        Also measure ours under torch.compile.
    rounds
        Measurements of each step; medians and interquartile ranges are over these.
    threads
        Threads, pinned to as many cores (default 2).
    out
        Also write the JSON to this file, such as results/bench-train.json.
    json
        Print one JSON object instead of a table.
    """
    from benchmarks.rounds import Plan
    from benchmarks.runtimes import check_compiler
    from benchmarks.training_steps import bench_training

    check_out(out, "bench-train.json")
    for option, value in (("--size", size), ("--batch", batch)):
        if value < 1:
            raise ConfigError(f"{option} {value} is not allowed: 1 or more")
    if compile:
        check_compiler()
    plan = Plan(rounds=rounds) if threads is None else Plan(rounds=rounds, threads=threads)
    record = bench_training(
        plan, model, rival, size=size, batch=batch, checkpointing=checkpoint_activations, compiled=compile,
        command=command_line(),
    )  # fmt: skip
    deliver(record, _table(record), out, json)


def _table(record: dict[str, Any]) -> str:
    rows: list[tuple[str, ...]] = [("training step", "ms", "step MB", "kept MB")]
    for name, step in record["steps"].items():
        rows.append((name, milliseconds(step, 1), _megabytes(step["step_bytes"]), _megabytes(step["kept_bytes"])))
    faster = shown_ratio(record["times_faster_than_authors"], ">=", record["target_times_faster"])
    memory = shown_ratio(record["memory_over_authors"], "<=", record["target_memory"])
    lines = [f"{heading(record)}, {record['model']}, batch {record['batch']} at {record['size']}", SPREAD_NOTE, ""]
    lines += [*aligned(rows), "", f"authors' time / ours: {faster}", f"our step memory / authors': {memory}"]
    return "\n".join(lines) + "\n"


def _megabytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e6:.0f}"
