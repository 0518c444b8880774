"""What a whole network costs over its backbone, in the training step of each task with its default head.

Multiply-adds are counted in the forward pass to the loss (torch's FlopCounterMode), of the network and of the backbone
alone; the time is that of forward and backward pass, without the optimiser. Both take the same images.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from benchmarks import peak
from benchmarks.fresh import in_fresh_process
from benchmarks.records import SPREAD_NOTE, command_line, heading, ratio, shown_ratio, summary
from cyclemlp.cli.bench_output import Json, Out, Rounds, Threads, aligned, check_out, check_positive, deliver
from cyclemlp.inference.rounds import DEFAULT_THREADS, Case, Plan, Suite, measure

if TYPE_CHECKING:
    from torch import Tensor, nn

SIZES = {"classification": 224, "segmentation": 256, "detection": 640, "instance-segmentation": 640}
"""Edge of the square images of each task, in pixels."""
OBJECTS = 30
"""Labelled objects per image of the last two, 24 pixels wide."""
TARGET = 1.8
NETWORK, BACKBONE = "network", "backbone"


def heads(
    model: str = "cyclemlp_nano",
    /,
    *,
    batch: int = 2,
    rounds: Rounds = 7,
    threads: Threads = DEFAULT_THREADS,
    out: Out = None,
    json: Json = False,
) -> None:
    """Compare the training step of whole networks with their default heads with that of the backbone alone.

    Images have 224 pixels in classification, 256 in segmentation, 640 in detection and instance segmentation.

    Parameters
    ----------
    model
        The backbone, by its timm name.
    batch
        Images per step.
    """
    check_out(out, "bench-heads.json")
    check_positive(batch=batch)
    record = bench_heads(Plan(rounds, threads=threads), model, batch, command=command_line())
    deliver(record, _table(record), out, json)


@dataclass(frozen=True)
class Step:
    """A training step to measure."""

    task: str
    model: str
    size: int
    batch: int


def bench_heads(
    plan: Plan, model: str = "cyclemlp_nano", batch: int = 2, *, sizes: Mapping[str, int] = SIZES, command: str = ""
) -> dict[str, Any]:
    """Measure and return the record for JSON. Raises ConfigError for a model without a pyramid."""
    steps = {task: Step(task, model, size, batch) for task, size in sizes.items()}
    counted = {task: in_fresh_process(plan.threads, multiply_adds, step) for task, step in steps.items()}
    measured = measure([peak.SUITE, *(Suite(task, step_cases, (step,)) for task, step in steps.items())], plan)
    rows = {}
    for task, step in steps.items():
        timings = {name: measured.timings[task, name] for name in (NETWORK, BACKBONE)}
        rows[task] = {
            **asdict(step),
            **counted[task],
            "operations": counted[task][f"{NETWORK}_multiply_adds"] / counted[task][f"{BACKBONE}_multiply_adds"],
            "time": ratio(timings[NETWORK], timings[BACKBONE]),
            **{name: timing.to_dict() for name, timing in timings.items()},
        }
    return {"bench": "heads", **summary([measured], plan, command), "model": model, "target": TARGET, "tasks": rows}


def multiply_adds(step: Step) -> dict[str, Any]:
    """Those of the network to its loss and of the backbone; head and its width."""
    from torch.utils.flop_counter import FlopCounterMode

    made = _made(step)
    counts: dict[str, Any] = {"head": made.head, "head_width": made.width}
    for name, forward in ((NETWORK, made.loss), (BACKBONE, made.features)):
        with FlopCounterMode(display=False) as counter:
            forward()
        counts[f"{name}_multiply_adds"] = int(counter.get_total_flops()) // 2
    return counts


def step_cases(step: Step) -> Mapping[str, Case]:
    """Both steps, in the process that measures them."""
    made = _made(step)
    return {NETWORK: lambda: made.loss().backward(), BACKBONE: lambda: made.features().backward()}  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class _Made:
    head: str
    width: int | None
    loss: "Callable[[], Tensor]"
    features: "Callable[[], Tensor]"


def _made(step: Step) -> _Made:
    import torch

    from cyclemlp.models.forms.lean import lean_

    torch.manual_seed(0)
    images = torch.randn(step.batch, 3, step.size, step.size)
    card = _card(step)
    loss, network = _with_loss(step, card, images)
    lean_(network)
    trunk: Any = network
    forward: Any = trunk.forward_features if card.head == "linear" else trunk.backbone

    def features() -> torch.Tensor:
        maps = forward(images)
        return torch.stack([each.mean() for each in (maps if isinstance(maps, list) else [maps])]).sum()

    return _Made(card.head, card.head_width, loss, features)


def _card(step: Step) -> Any:
    """The card of a run with default options."""
    from pathlib import Path

    from cyclemlp.heads.detection_options import COCO_DETECTIONS
    from cyclemlp.heads.widths import default_width
    from cyclemlp.tasks.card import ModelCard
    from cyclemlp.tasks.detection.defaults import proposals
    from cyclemlp.tasks.registry import get_task

    config = get_task(step.task).config(data=Path())
    if step.task == "classification":
        return ModelCard(step.task, step.model, "linear", ("a", "b"), image_size=step.size, crop_pct=1.0)
    head: str = config.head  # type: ignore[attr-defined]
    detection = None
    if hasattr(config, "detector"):
        candidates = proposals(head, COCO_DETECTIONS)
        detection = replace(config.detector.as_head(), anchor_size=3.0, candidates=candidates)
    return ModelCard(step.task, step.model, head, ("a", "b"), default_width(step.model, head), detection=detection)


def _with_loss(step: Step, card: Any, images: "Tensor") -> "tuple[Callable[[], Tensor], nn.Module]":
    import torch
    import torch.nn.functional as F

    from cyclemlp.tasks.card import build_model

    network: Any = build_model(card).train()
    if card.detection is None:
        shape = (step.batch,) if card.head == "linear" else (step.batch, step.size, step.size)
        labels = torch.zeros(shape, dtype=torch.long)
        return lambda: F.cross_entropy(network(images), labels), network
    targets = [_objects(step.size, masks=step.task != "detection") for _ in range(step.batch)]
    sizes = [(step.size, step.size)] * step.batch
    return lambda: torch.stack(list(network.losses(images, sizes, targets).values())).sum(), network


def _objects(size: int, *, masks: bool) -> "dict[str, Tensor]":
    import torch

    corners = torch.rand(OBJECTS, 2) * (size - 24)
    found = {"boxes": torch.cat([corners, corners + 24], 1), "labels": torch.zeros(OBJECTS, dtype=torch.long)}
    if masks:
        found["masks"] = torch.ones(OBJECTS, size, size, dtype=torch.uint8)
    return found


def _table(record: dict[str, Any]) -> str:
    rows: list[tuple[str, ...]] = [("task", "head", "width", "pixels", "operations", "time")]
    for task, row in record["tasks"].items():
        ratios = [shown_ratio(row[name], "<=", record["target"]) for name in ("operations", "time")]
        rows.append((task, row["head"], str(row["head_width"] or "-"), str(row["size"]), *ratios))
    title = f"{heading(record)}, {record['model']}: training step of the network over that of the backbone"
    return "\n".join([title, SPREAD_NOTE, "", *aligned(rows)]) + "\n"
