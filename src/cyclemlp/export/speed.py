"""How fast networks are on this machine: run folders, exported files and models by name, in each runtime installed."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import numpy as np

from cyclemlp.errors import ConfigError, did_you_mean
from cyclemlp.files import JsonObject
from cyclemlp.inference.rounds import Case, Measurement, Plan, Suite, disturbance, measure
from cyclemlp.inference.runtimes.registry import is_exported, load_network
from cyclemlp.machine import environment
from cyclemlp.tasks.aside import settle
from cyclemlp.tasks.card import ModelCard

FORWARD = "forward"
DEFAULT_SIZE = 224
IMAGENET_CLASSES = 1000
"""Outputs of a model that is given by its name."""
RUNTIMES: Mapping[str, Sequence[str]] = {
    "torch": (),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
}
"""What each runtime needs besides torch."""
_FILE_RUNTIMES = {".onnx": "onnx", ".xml": "openvino", ".pt2": "torch"}

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subject:
    """A network in one runtime and the images it gets."""

    target: str
    """As the user named it."""
    runtime: str
    path: Path
    """The run folder or exported file that is loaded."""
    card: ModelCard
    size: int
    """Edge of the square images, in pixels."""

    def suite(self, batch: int, threads: int) -> Suite:
        """The process that measures it on `batch` images at a time."""
        shape = (batch, self.card.in_chans, self.size, self.size)
        return Suite(f"{self.target} {self.runtime}", network_cases, (self.path, shape, threads))

    def result(self, batch: int, measured: Measurement) -> JsonObject:
        """The entry of the record about a measurement on `batch` images at a time."""
        name = self.suite(batch, 0).name
        timing = measured.timings[name, FORWARD]
        return {
            "target": self.target,
            "task": self.card.task,
            "model": self.card.model,
            "runtime": self.runtime,
            "size": self.size,
            "batch": batch,
            **timing.to_dict(),
            "images_per_s": batch / timing.median,
            "peak_process_bytes": measured.peak_bytes[name],
        }


def network_cases(path: Path, shape: tuple[int, int, int, int], threads: int) -> Mapping[str, Case]:
    """One forward pass of the network in `path` on random images (N, C, H, W), in the process that measures it."""
    network, _ = load_network(path, "cpu", threads)
    images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return {FORWARD: lambda: network(images)}


def measure_speed(
    targets: Sequence[str],
    plan: Plan,
    *,
    sizes: Sequence[int] = (),
    batches: Sequence[int] = (1,),
    runtimes: Sequence[str] = (),
    command: str = "cyclemlp bench",
) -> JsonObject:
    """Time forward passes and return the record for JSON; all that share a size and a batch share their rounds.

    Args:
        targets: run folders, exported files, and names of timm models, which get random weights and 1000 classes.
        plan: rounds and threads.
        sizes: edges of the square images; by default what each network was trained on, or 224.
        batches: images per pass.
        runtimes: of `RUNTIMES`; by default all that are installed. Exported files run in their own runtime.
        command: noted in the record.

    Raises ConfigError for an unknown target or runtime, and for a size that a network does not take or that cannot be
    exported, CheckpointError for a damaged run folder or file, MissingExtraError for a runtime that is not installed.
    """
    for name in runtimes:
        if name not in RUNTIMES:
            near = did_you_mean(name, RUNTIMES)
            raise ConfigError(f"--runtime {name!r} is not known.{near} Allowed are {', '.join(RUNTIMES)}")
    measured: list[Measurement] = []
    results: list[JsonObject] = []
    with TemporaryDirectory(prefix="cyclemlp-bench-") as folder:
        groups = [
            [each for target in dict.fromkeys(targets) for each in _subjects(target, size, runtimes, Path(folder))]
            for size in sizes or (None,)
        ]
        for subjects, batch in product(groups, batches):
            measured.append(measure([each.suite(batch, plan.threads) for each in subjects], plan))
            results += [each.result(batch, measured[-1]) for each in subjects]
    return {
        "bench": "speed",
        "environment": environment(command, plan.threads, measured[0].cores),
        "rounds": plan.rounds,
        **disturbance(measured),
        "results": results,
    }


def _subjects(target: str, size: int | None, runtimes: Sequence[str], folder: Path) -> Iterator[Subject]:
    """What is measured of `target`: one subject for each runtime. Temporary files go into `folder`."""
    path = Path(target)
    if is_exported(path):
        yield _subject(target, _FILE_RUNTIMES[path.suffix.lower()], path, size)
        return
    settle(path)
    run = path if path.exists() else _random_run(target, size or DEFAULT_SIZE, folder)
    in_torch = _subject(target, "torch", run, size)
    installed = [name for name, packages in RUNTIMES.items() if all(map(find_spec, packages))]
    for runtime in runtimes or installed:
        if runtime == "torch":
            yield in_torch
            continue
        try:
            yield _exported(in_torch, runtime, folder)
        except ConfigError as error:
            if runtimes:
                raise
            _logger.warning("%s is not measured in %s: %s", target, runtime, error)


def _subject(target: str, runtime: str, path: Path, size: int | None) -> Subject:
    """The network in `path` at `size`, after a look at whether it takes images of it."""
    network, card = load_network(path, "cpu")
    size = size or card.image_size or card.window or card.short_side or DEFAULT_SIZE
    rule = network.size_rule
    if rule.multiple == card.image_size != size:
        raise ConfigError(f"--size {size}: {target} takes images of {card.image_size} pixels only; leave --size out")
    edge = rule.padded(size)
    try:
        network(np.zeros((1, card.in_chans, edge, edge), dtype=np.float32))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"--size {size}: {target} takes no images of this size ({reason}); choose another") from error
    return Subject(target, runtime, path, card, edge)


def _random_run(name: str, size: int, folder: Path) -> Path:
    import torch

    from cyclemlp.tasks.card import build_model, classifier_card, save_model

    card = classifier_card(name, size, IMAGENET_CLASSES)
    torch.manual_seed(0)
    run = Path(mkdtemp(dir=folder))
    save_model(run, build_model(card), card)
    return run


def _exported(subject: Subject, runtime: str, folder: Path) -> Subject:
    """The run folder of `subject` as a file for `runtime`, whose values have been compared with torch's."""
    from cyclemlp.export.formats import FORMATS
    from cyclemlp.export.program import export_program, raw_network
    from cyclemlp.export.run import write_checked
    from cyclemlp.tasks.card import load_model

    model, card = load_model(subject.path)
    raw = raw_network(model, card if card.image_size is None else replace(card, image_size=subject.size))
    path = Path(mkdtemp(dir=folder)) / f"model{FORMATS[runtime].suffix}"
    write_checked(export_program(raw), raw, model, path, runtime)
    return replace(subject, runtime=runtime, path=path, size=raw.facts.size_rule.padded(subject.size))
