"""Whether reading images limits training: the rate of the loader, that of a training step, and that of both together.

The loader, the augmentation and the step are those of `cyclemlp train classification` with its defaults. Everything
shares the pinned cores, as in training. A loader is emptied before it is timed, because the batches that its workers
have ready would make it look faster than it is.
"""

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from benchmarks.records import command_line
from cyclemlp.cli.bench_output import Json, Numbers, Out, Rounds, Threads, aligned, check_out, check_positive, deliver
from cyclemlp.data.datasets import ClassifiedDataset
from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.errors import MissingExtraError
from cyclemlp.inference.rounds import DEFAULT_THREADS, Plan, Timing
from cyclemlp.machine import BUSY_SHARE, ForeignLoad, environment, pin_to_cores

if TYPE_CHECKING:
    from cyclemlp.tasks.base import TrainingParts

IMAGE_SIZE = (500, 375)
"""(width, height) of the synthetic images; about the average of ImageNet's."""
IMAGES = 256
QUALITY = 90
COARSE = 24
"""Pixels of an image that share a colour before it is smoothed; its file is then about as large as a photograph's."""
GRAIN = 6.0
"""Standard deviation of the noise on it, of 255."""
PREFETCHED = 2
"""Batches that each worker of a torch DataLoader keeps ready."""
STEP = "step"


def loader(
    data: Path | None = None,
    /,
    *,
    model: str = "cyclemlp_nano",
    size: int = 224,
    batch: int = 32,
    workers: Numbers = (1, 2),
    rounds: Rounds = 5,
    threads: Threads = DEFAULT_THREADS,
    out: Out = None,
    json: Json = False,
) -> None:
    """Images per second that workers read and augment, that a training step takes, and that both process together.

    Step and loader are those of `cyclemlp train classification` with its defaults, and share the pinned cores.

    Parameters
    ----------
    data
        Folder of class folders to read; by default JPEGs of 500x375 pixels are synthesised for the measurement.
    model
        Trained on them.
    size
        Edge of the square images, in pixels.
    batch
        Images per step.
    workers
        Numbers of processes that read.
    """
    check_out(out, "bench-loader.json")
    check_positive(size=size, batch=batch, workers=workers)
    plan = Plan(rounds, threads=threads)
    record = bench_loading(plan, data, model, size=size, batch=batch, workers=workers, command=command_line())
    deliver(record, _table(record), out, json)


def bench_loading(
    plan: Plan,
    data: Path | None = None,
    model: str = "cyclemlp_nano",
    *,
    size: int = 224,
    batch: int = 32,
    workers: Sequence[int] = (1, 2),
    batches: int = 4,
    command: str = "",
) -> dict[str, Any]:
    """Measure and return the record for JSON; a measurement takes this number of `batches`.

    Without `data`, a folder of class folders, synthetic images are used.

    Raises:
        ConfigError: an unknown model, or one that does not take this size.
        DataError: `data` is no folder of class folders.
    """
    cores = pin_to_cores(plan.threads)
    with tempfile.TemporaryDirectory() as folder:
        parts = _parts(data or write_images(Path(folder)), model, size)
        load = ForeignLoad(_family_seconds)
        timings = _measure(_cases(parts, batch, workers, batches, plan.threads), plan.rounds)
        share = load.share()
    rates = {name: _rate(timing, batch * batches) for name, timing in timings.items()}
    return {
        "bench": "loader",
        "environment": environment(command, plan.threads, cores),
        "rounds": plan.rounds,
        "foreign_share": share,
        "busy": share is not None and share > BUSY_SHARE,
        "model": model,
        "size": size,
        "batch": batch,
        "pictures": _described(parts, data),
        "step": rates[STEP],
        "workers": {
            str(count): {
                "alone": rates[f"{count} alone"],
                "training": rates[f"{count} training"],
                "over_step": rates[f"{count} alone"]["images_per_s"] / rates[STEP]["images_per_s"],
                "training_over_step": rates[f"{count} training"]["images_per_s"] / rates[STEP]["images_per_s"],
            }
            for count in workers
        },
    }


def write_images(folder: Path, count: int = IMAGES) -> Path:
    """Write JPEGs of smooth noise with some grain in two class folders; returns `folder`."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(partial(_write_image, folder), range(count)))
    return folder


def _write_image(folder: Path, number: int) -> None:
    random = np.random.default_rng(number)
    width, height = IMAGE_SIZE
    coarse = random.integers(0, 256, (height // COARSE + 1, width // COARSE + 1, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize(IMAGE_SIZE, Image.Resampling.BICUBIC), np.float32)
    grainy = np.clip(smooth + random.normal(0, GRAIN, smooth.shape), 0, 255).astype(np.uint8)
    path = folder / "train" / f"class{number % 2}" / f"{number}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grainy).save(path, quality=QUALITY)
    if number < 2:  # a data set needs a validation split
        held_out = folder / "val" / path.relative_to(folder / "train")
        held_out.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grainy).save(held_out, quality=QUALITY)


def _parts(data: Path, model: str, size: int) -> "TrainingParts":
    """The parts of a classification run with default options."""
    try:
        from cyclemlp.tasks.classification.config import ClassificationConfig
        from cyclemlp.tasks.classification.train import classification_parts
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "train") from error
    config = ClassificationConfig(data=data, model=model, image_size=size)
    return classification_parts(config, find_dataset(data, ClassifiedDataset))


def _cases(
    parts: "TrainingParts", batch: int, workers: Sequence[int], batches: int, threads: int
) -> dict[str, Callable[[], float]]:
    """Each returns the seconds that this number of batches took."""
    step = _training_step(parts, threads)
    streams = {count: _stream(parts, batch, count) for count in workers}
    kept = next(iter(streams[workers[0]]))

    def steps() -> float:
        return _seconds(lambda: step(kept), batches)

    cases: dict[str, Callable[[], float]] = {STEP: steps}
    for count, stream in streams.items():
        cases[f"{count} alone"] = partial(_from_empty, stream, count, batches, lambda _batch: None)
        cases[f"{count} training"] = partial(_from_empty, stream, count, batches, step)
    return cases


def _stream(parts: "TrainingParts", batch: int, workers: int) -> Iterator[Any]:
    from cyclemlp.training.loader import ResumableLoader

    return iter(ResumableLoader(parts.samples, batch, seed=0, workers=workers, collate=parts.collate))


def _training_step(parts: "TrainingParts", threads: int) -> Callable[[Any], None]:
    import torch

    torch.set_num_threads(threads)
    model = parts.model.train()
    optimiser = torch.optim.AdamW(parts.groups(model), lr=1e-4)

    def step(batch: Any) -> None:
        images, targets = batch
        optimiser.zero_grad()
        parts.loss(model, images, targets)["loss"].backward()
        optimiser.step()

    return step


def _from_empty(stream: Iterator[Any], workers: int, batches: int, use: Callable[[Any], None]) -> float:
    for _ in range(PREFETCHED * workers + 1):
        next(stream)
    return _seconds(lambda: use(next(stream)), batches)


def _seconds(action: Callable[[], None], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        action()
    return time.perf_counter() - start


def _measure(cases: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Timing]:
    """Every case once a round, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in tqdm(range(rounds + 1), desc="rounds", file=sys.stderr, disable=None):
        for name, case in cases.items():
            taken = case()
            if number:
                seconds[name].append(taken)
    return {name: Timing(tuple(each)) for name, each in seconds.items()}


def _rate(timing: Timing, images: int) -> dict[str, Any]:
    return {"images_per_s": images / timing.median, **timing.to_dict()}


def _described(parts: "TrainingParts", data: Path | None) -> dict[str, Any]:
    """What was read, without naming folders of this machine."""
    made_up = f"JPEG of {IMAGE_SIZE[0]}x{IMAGE_SIZE[1]}, made up"
    return {"count": len(parts.samples), "kind": made_up if data is None else "given"}


def _family_seconds() -> float:
    """Processor seconds of this process and its workers, those that have ended and those that still run."""
    spent = os.times()
    ticks = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 1
    running = [Path(f"/proc/{child.pid}/stat") for child in multiprocessing.active_children()]
    return sum(spent[:4]) + sum(map(_ticks, running)) / ticks


def _ticks(stat: Path) -> int:
    """Of a process, in its own code and in the system's; 0 where the system does not report them."""
    try:
        fields = stat.read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


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
