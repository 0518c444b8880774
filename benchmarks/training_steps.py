"""One training step of a whole network: forward, loss, backward, AdamW; its time, and the memory it takes.

Memory is measured twice, in a process of its own for each network. `step_bytes`: the most that was resident during
the process's second step less what was resident before, when weights, gradients, optimiser state and images were all
there already; so it holds activations, their gradients and scratch. `kept_bytes`: what autograd keeps of the forward
pass for the backward pass, weights apart; the same on every machine.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import peak
from benchmarks.fresh import in_fresh_process
from benchmarks.rounds import Plan, measure
from benchmarks.timing import ratio
from benchmarks.worker import Case, Suite
from cyclemlp.machine import (
    environment,
    forget_peak,
    peak_bytes,
    pin_to_cores,
    resident_bytes,
    return_free_memory,
)

OURS, AUTHORS = "ours", "authors' operator"
TIMES_FASTER_TARGET = 3.3
MEMORY_TARGET = 0.80
STEP = "step"


@dataclass(frozen=True)
class Step:
    """A training step to measure."""

    model: str
    size: int = 224
    batch: int = 8
    authors: bool = False
    """With the authors' operator, and nothing recomputed."""
    checkpointing: bool = False
    """Activations of the blocks are computed again in the backward pass."""
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
    command: str = "cyclemlp bench train",
) -> dict[str, Any]:
    """Measure and give the record for JSON.

    Raises:
        ConfigError: an unknown model, or one that does not take this size.
    """
    steps = {OURS: Step(model, size, batch), AUTHORS: Step(model, size, batch, authors=True)}
    if checkpointing:
        steps[f"{OURS}, checkpointing"] = Step(model, size, batch, checkpointing=True)
    if compiled:
        steps[f"{OURS}, compiled"] = Step(model, size, batch, compiled=True)
    steps |= {rival: Step(rival, size, batch) for rival in rivals}
    memory = {name: in_fresh_process(step_memory, step, plan.threads) for name, step in steps.items()}
    suites = [Suite(name, step_case, (step, plan.threads)) for name, step in steps.items()]
    measured = measure([Suite(peak.NAME, peak.cases, (plan.threads,)), *suites], plan)
    timings = {name: measured.timings[name, STEP] for name in steps}
    product = measured.timings[peak.NAME, peak.NAME]
    return {
        "bench": "train",
        "environment": environment(command, plan.threads, measured.cores),
        "rounds": plan.rounds,
        "foreign_share": measured.foreign_share,
        "busy": measured.busy,
        "matrix_product": {"gflops_per_s": peak.gflops_per_second(product), **product.to_dict()},
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


def step_case(step: Step, threads: int) -> Mapping[str, Case]:
    """The step, in the process that measures it."""
    return {STEP: training_step(step, threads)[0]}


def training_step(step: Step, threads: int) -> tuple[Callable[[], None], Callable[[], Any]]:
    """The whole step, and its forward pass to the loss alone; gradients and optimiser state are there already."""
    import torch
    import torch.nn.functional as F

    from benchmarks.subjects import Subject, authors_network, plain_network
    from cyclemlp.models.forms.lean import lean_

    torch.set_num_threads(threads)
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

    def forward() -> Any:
        return F.cross_entropy(called(images), labels)

    def run() -> None:
        optimiser.zero_grad(set_to_none=False)
        forward().backward()
        optimiser.step()

    return run, forward


def step_memory(step: Step, threads: int) -> dict[str, int | None]:
    """`step_bytes` and `kept_bytes`, as this module defines them; in a fresh process."""
    pin_to_cores(threads)
    run, forward = training_step(step, threads)
    run()  # what libraries and the compiler set up once is not the step's
    return_free_memory()
    before = resident_bytes()
    forget_peak()
    run()
    most = peak_bytes()
    grown = None if most is None or before is None else most - before
    return {"step_bytes": grown, "kept_bytes": None if step.compiled else kept_bytes(forward)}


def kept_bytes(forward: Callable[[], Any]) -> int:
    """Bytes that autograd keeps between `forward` and the backward pass: each tensor once, weights not at all."""
    import torch

    storages: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        owner = tensor if tensor._base is None else tensor._base
        if not (owner.is_leaf and owner.requires_grad):  # a weight is there anyway
            storages[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = forward()
    total = sum(int(tensor.untyped_storage().nbytes()) for tensor in storages.values())
    del loss
    return total
