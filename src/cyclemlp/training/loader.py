"""Batches that can be resumed at any point, exactly.

The training images form one endless stream: pass after pass over the data set, each in an order that follows from
(seed, pass) alone, divided into batches regardless of where a pass ends. A batch is a function of its number, so a run
continues with the next number; no batch is shorter than the others, and a data set smaller than a batch works. Every
sample is augmented under its own seed, so the number of workers does not matter either.
"""

import hashlib
import itertools
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache, partial
from typing import Any, ClassVar

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from cyclemlp.errors import ConfigError, UserError
from cyclemlp.tasks.base import Collate, Sample, Samples

SECONDS_AFTER_SIGTERM = 30


def derive_seed(*parts: int) -> int:
    """A 63-bit seed, unrelated for different `parts`; the same on every machine."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


@dataclass(eq=False)
class SampleStream:
    """The endless order of samples: number -> (index in the data set, seed of its augmentation).

    With `repeats`, every sample is taken that many times in a row, so that a batch holds it under different
    augmentations. A pass keeps its length, and so holds only a part of the samples (Hoffer et al., 2019).
    """

    length: int
    seed: int
    repeats: int = 1

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError("there are no samples to draw from")
        self._order = lru_cache(maxsize=4)(self._shuffled)

    def __getitem__(self, number: int) -> tuple[int, int]:
        epoch, place = divmod(number, self.length)
        return self._order(epoch)[place // self.repeats], derive_seed(self.seed, 1, epoch, place)

    def _shuffled(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, 0, epoch))
        order: list[int] = torch.randperm(self.length, generator=generator).tolist()
        return order


@dataclass(eq=False)
class GroupedStream:
    """A sample stream reordered so that, as far as possible, all samples of a batch belong to one aspect group.

    Samples of one group have similar shapes, so that little padding is needed. The stream is cut into stretches of
    `BATCHES_PER_STRETCH` batches, or of one pass where that is shorter. Within a stretch the samples are sorted by
    group and divided into batches, and the batches are shuffled. So every sample appears as often as in the original
    stream, and a batch is still a function of its number.
    """

    stream: SampleStream
    aspect_groups: Sequence[int]
    batch_size: int
    BATCHES_PER_STRETCH: ClassVar = 64

    def __post_init__(self) -> None:
        if len(self.aspect_groups) != self.stream.length:
            raise ValueError(f"{len(self.aspect_groups)} aspect groups for {self.stream.length} samples")
        self._batches = max(1, min(self.BATCHES_PER_STRETCH, self.stream.length // self.batch_size))
        self._order = lru_cache(maxsize=4)(self._sorted_and_shuffled)

    def __getitem__(self, number: int) -> tuple[int, int]:
        stretch, place = divmod(number, self._batches * self.batch_size)
        return self.stream[self._order(stretch)[place]]

    def _sorted_and_shuffled(self, stretch: int) -> list[int]:
        length = self._batches * self.batch_size
        numbers = range(stretch * length, (stretch + 1) * length)
        by_group = sorted(numbers, key=lambda number: self.aspect_groups[self.stream[number][0]])
        generator = torch.Generator().manual_seed(derive_seed(self.stream.seed, 3, stretch))
        starts = (torch.randperm(self._batches, generator=generator) * self.batch_size).tolist()
        return [number for start in starts for number in by_group[start : start + self.batch_size]]


@dataclass(eq=False)
class ResumableLoader:
    """Batches of a `SampleStream` from any number on, read by `workers` processes.

    Iterating yields batches (images, targets), as `collate` makes them, without end. When `world` processes train
    together, the one of number `rank` gets its own `batch_size` samples of every step. With `aspect_groups`, a group
    number for every sample, batches are made of one group where possible. Errors caused by user input (an unreadable
    image, for example) are raised here unchanged, not wrapped in a worker's traceback.
    """

    samples: Samples
    batch_size: int
    _: KW_ONLY
    seed: int
    repeats: int = 1
    aspect_groups: Sequence[int] | None = None
    workers: int = 0
    rank: int = 0
    world: int = 1
    pin_memory: bool = False
    collate: Collate = default_collate

    def __post_init__(self) -> None:
        stream, groups = SampleStream(len(self.samples), self.seed, self.repeats), self.aspect_groups
        self._stream = stream if groups is None else GroupedStream(stream, groups, self.batch_size)
        self._delivered = 0

    def __iter__(self) -> Iterator[Any]:
        loader = DataLoader(
            _Seeded(self.samples),
            batch_sampler=self._numbers(),
            num_workers=self.workers,
            collate_fn=partial(_collate_or_error, collate=self.collate),
            worker_init_fn=_outlive_signals,
            pin_memory=self.pin_memory,
            # Without its own generator a DataLoader draws from the global one.
            generator=torch.Generator().manual_seed(0),
        )
        for batch in loader:
            if isinstance(batch, UserError):
                raise batch
            self._delivered += 1
            yield batch

    def _numbers(self) -> Iterator[list[tuple[int, int]]]:
        """Endless lists of (index, seed), one per batch, from the next batch on."""
        for step in itertools.count(self._delivered):
            first = (step * self.world + self.rank) * self.batch_size
            yield [self._stream[number] for number in range(first, first + self.batch_size)]

    def state_dict(self) -> dict[str, int]:
        """How many batches were delivered, and what determines them."""
        return {"delivered": self._delivered, **self._identity()}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue at the batch after the last one delivered. ConfigError where the batches would not be the same."""
        for name, now in self._identity().items():
            if (before := state.get(name, now)) != now:
                raise ConfigError(
                    f"the run was made with {name} {before}, now it is {now}: an exact continuation needs"
                    " the same; restore it, or start a new run with --init from this one"
                )
        self._delivered = state["delivered"]

    def _identity(self) -> dict[str, int]:
        return {
            "training images": len(self.samples),
            "seed": self.seed,
            "repeats": self.repeats,
            "batches of similar shapes": int(self.aspect_groups is not None),
            "batch size": self.batch_size,
            "devices": self.world,
        }


@dataclass(eq=False)
class _Seeded(Dataset[Any]):
    """Samples read under the seed given with their index; the caller's random state is left unchanged."""

    samples: Samples

    def __getitem__(self, item: tuple[int, int]) -> Sample | UserError:
        index, seed = item
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                return self.samples[index]
            except UserError as error:
                return error


def _collate_or_error(items: list[Any], collate: Collate) -> Any:
    """A batch of the samples, or the first error among them."""
    error = next((item for item in items if isinstance(item, UserError)), None)
    return collate(items) if error is None else error


def _outlive_signals(_worker: int) -> None:
    """Let the main process decide when to stop: Ctrl-C and `timeout` send their signal to every process of the group.

    The main process needs its readers until the end of the step. After SIGTERM a reader exits by itself a while later,
    because multiprocessing also ends its readers by that signal and waits for them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(SECONDS_AFTER_SIGTERM))
