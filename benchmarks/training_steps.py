"""One training step of a whole network: forward, loss, backward, AdamW; its time, and the memory it takes.

Memory is measured twice, in a process of its own for each network. `step_bytes`: the maximum resident during the
process's second step minus what was resident before it, with weights, gradients, optimiser state and images in place;
so it counts activations, their gradients and scratch memory. `kept_bytes`: what autograd keeps of the forward pass for
the backward pass, without the weights; the same on every machine.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks import peak
from benchmarks.fresh import in_fresh_process
from benchmarks.memory import grown_bytes
from benchmarks.records import SPREAD_NOTE, command_line, heading, ratio, shown_ratio, summary
from benchmarks.runtimes import check_compiler
from cyclemlp.cli.bench_output import (
    Json,
    Out,
    Rounds,
    Threads,
    aligned,
    check_out,
    check_positive,
    deliver,
    megabytes,
    milliseconds,
)
from cyclemlp.inference.rounds import DEFAULT_THREADS, Case, Plan, Suite, measure

if TYPE_CHECKING:
    from torch import Tensor

OURS, AUTHORS = "ours", "authors' operator"
TIMES_FASTER_TARGET = 3.3
MEMORY_TARGET = 0.80
STEP = "step"


def train(
    model: str = "cyclemlp_b2",
    /,
    *,
    rival: tuple[str, ...] = ("swin_tiny_patch4_window7_224",),
    size: int = 224,
    batch: int = 8,
    checkpoint_activations: bool = False,
    compile: bool = False,  # noqa: A002
    rounds: Rounds = 5,
    threads: Threads = DEFAULT_THREADS,
    out: Out = None,
    json: Json = False,
) -> None:
    """Time a training step (forward, loss, backward, AdamW) with our operator and the authors', and its memory.

    Step memory is the maximum resident during the second step minus what was resident before it, with weights,
    gradients, optimiser state and images in place; kept memory is what autograd keeps of the forward pass.

    Parameters
    ----------
    model
        One of this package's models.
    rival
        Another model to measure.
    size
        Edge of the square images, in pixels.
    batch
        Images per step.
    checkpoint_activations
        Also measure ours with the blocks' activations recomputed in the backward pass.
    compile
        Also measure ours under torch.compile.
    """
    check_out(out, "bench-train.json")
    check_positive(size=size, batch=batch)
    if compile:
        check_compiler()
    record = bench_training(
        Plan(rounds, threads=threads), model, rival, size=size, batch=batch, checkpointing=checkpoint_activations,
        compiled=compile, command=command_line(),
    )  # fmt: skip
    deliver(record, _table(record), out, json)


@dataclass(frozen=True)
class Step:
    """A training step to measure."""

    model: str
    size: int = 224
    batch: int = 8
    authors: bool = False
    """With the authors' operator, and nothing recomputed."""
    checkpointing: bool = False
    """Activations of the blocks are recomputed in the backward pass."""
    compiled: bool = False
    """torch.compile."""


def bench_training(
    plan: Plan,
    model: str = "cyclemlp_b2",
    rivals: Sequence[str] = ("swin_tiny_patch4_window7_224",),
    *,
    size: int = 224,
    batch: int = 8,
    checkpointing: bool = False,
    compiled: bool = False,
    command: str = "",
) -> dict[str, Any]:
    """Measure and return the record for JSON.

    Raises:
        ConfigError: an unknown model, or one that does not take this size.
    """
    steps = {OURS: Step(model, size, batch), AUTHORS: Step(model, size, batch, authors=True)}
    if checkpointing:
        steps[f"{OURS}, checkpointing"] = Step(model, size, batch, checkpointing=True)
    if compiled:
        steps[f"{OURS}, compiled"] = Step(model, size, batch, compiled=True)
    steps |= {rival: Step(rival, size, batch) for rival in rivals}
    memory = {name: in_fresh_process(plan.threads, step_memory, step) for name, step in steps.items()}
    measured = measure([peak.SUITE, *(Suite(name, step_case, (step,)) for name, step in steps.items())], plan)
    timings = {name: measured.timings[name, STEP] for name in steps}
    return {
        "bench": "train",
        **summary([measured], plan, command),
        "model": model,
        "size": size,
        "batch": batch,
        "steps": {name: {**timings[name].to_dict(), **memory[name]} for name in steps},
        "times_faster_than_authors": ratio(timings[AUTHORS], timings[OURS]),
        "target_times_faster": TIMES_FASTER_TARGET,
        "memory_over_authors": _over(memory, "step_bytes"),
        "kept_over_authors": _over(memory, "kept_bytes"),
        "target_memory": MEMORY_TARGET,
    }


def _over(memory: Mapping[str, Mapping[str, int | None]], what: str) -> float | None:
    ours, authors = memory[OURS][what], memory[AUTHORS][what]
    return ours / authors if ours is not None and authors else None


def step_case(step: Step) -> Mapping[str, Case]:
    """The step, in the process that measures it."""
    return {STEP: training_step(step)[0]}


def training_step(step: Step) -> "tuple[Callable[[], None], Callable[[], Tensor]]":
    """The whole step, and its forward pass to the loss alone; gradients and optimiser state exist already."""
    import torch
    import torch.nn.functional as F

    from benchmarks.subjects import Subject, authors_network, plain_network
    from cyclemlp.models.forms.lean import lean_

    build = authors_network if step.authors else plain_network
    network: Any = build(Subject(step.model, step.size, step.batch)).train()
    if not step.authors:
        lean_(network)
    if step.checkpointing:
        network.set_grad_checkpointing()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    called = torch.compile(network) if step.compiled else network
    images, labels = torch.randn(step.batch, 3, step.size, step.size), torch.arange(step.batch)

    def forward() -> torch.Tensor:
        return F.cross_entropy(called(images), labels)

    def run() -> None:
        optimiser.zero_grad(set_to_none=False)
        forward().backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return run, forward


def step_memory(step: Step) -> dict[str, int | None]:
    """`step_bytes` and `kept_bytes`, as this module defines them; in a fresh process."""
    run, forward = training_step(step)
    run()  # what libraries and the compiler set up once does not belong to the step
    return {"step_bytes": grown_bytes(run), "kept_bytes": None if step.compiled else kept_bytes(forward)}


def kept_bytes(forward: "Callable[[], Tensor]") -> int:
    """Bytes that autograd keeps between `forward` and the backward pass: each tensor once, without weights."""
    import torch

    storages: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        owner = tensor if tensor._base is None else tensor._base
        if not (owner.is_leaf and owner.requires_grad):  # weights exist anyway
            storages[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = forward()
    total = sum(int(tensor.untyped_storage().nbytes()) for tensor in storages.values())
    del loss
    return total


def _table(record: dict[str, Any]) -> str:
    rows: list[tuple[str, ...]] = [("training step", "ms", "step MB", "kept MB")]
    for name, step in record["steps"].items():
        rows.append((name, milliseconds(step, 1), megabytes(step["step_bytes"]), megabytes(step["kept_bytes"])))
    faster = shown_ratio(record["times_faster_than_authors"], ">=", record["target_times_faster"])
    memory = shown_ratio(record["memory_over_authors"], "<=", record["target_memory"])
    lines = [f"{heading(record)}, {record['model']}, batch {record['batch']} at {record['size']}", SPREAD_NOTE, ""]
    lines += [*aligned(rows), "", f"authors' time / ours: {faster}", f"our step memory / authors': {memory}"]
    return "\n".join(lines) + "\n"
