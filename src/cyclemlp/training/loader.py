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
from functools import lru_cache, partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from cyclemlp.errors import ConfigError, UserError
from cyclemlp.tasks.base import Collate, Sample, Samples

SECONDS_AFTER_SIGTERM = 30


def derive_seed(*parts: int) -> int:
    """A 63-bit seed, unrelated for different `parts`; the same on every machine."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


class SampleStream:
    """The endless order of samples: number -> (index in the data set, seed of its augmentation).

    With `repeats`, every sample is taken that many times in a row, so that a batch holds it under different
    augmentations. A pass keeps its length, and so holds only a part of the samples (Hoffer et al., 2019).
    """

    def __init__(self, length: int, seed: int, repeats: int = 1) -> None:
        if length < 1:
            raise ValueError("there are no samples to draw from")
        self.length = length
        self.seed = seed
        self.repeats = repeats
        self._order = lru_cache(maxsize=4)(self._shuffled)

    def __getitem__(self, number: int) -> tuple[int, int]:
        epoch, place = divmod(number, self.length)
        return self._order(epoch)[place // self.repeats], derive_seed(self.seed, 1, epoch, place)

    def _shuffled(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, 0, epoch))
        order: list[int] = torch.randperm(self.length, generator=generator).tolist()
        return order


class GroupedStream:
    """A sample stream reordered so that, as far as possible, all samples of a batch belong to one aspect group.

    Samples of one group have similar shapes, so that little padding is needed. The stream is cut into stretches of
    `BATCHES_PER_STRETCH` batches, or of one pass where that is shorter. Within a stretch the samples are sorted by
    group and divided into batches, and the batches are shuffled. So every sample appears as often as in the original
    stream, and a batch is still a function of its number.
    """

    BATCHES_PER_STRETCH = 64

    def __init__(self, stream: SampleStream, aspect_groups: Sequence[int], batch_size: int) -> None:
        if len(aspect_groups) != stream.length:
            raise ValueError(f"{len(aspect_groups)} aspect groups for {stream.length} samples")
        self._stream = stream
        self._groups = aspect_groups
        self._batch_size = batch_size
        self._batches = max(1, min(self.BATCHES_PER_STRETCH, stream.length // batch_size))
        self._order = lru_cache(maxsize=4)(self._sorted_and_shuffled)

    def __getitem__(self, number: int) -> tuple[int, int]:
        stretch, place = divmod(number, self._batches * self._batch_size)
        return self._stream[self._order(stretch)[place]]

    def _sorted_and_shuffled(self, stretch: int) -> list[int]:
        length = self._batches * self._batch_size
        numbers = range(stretch * length, (stretch + 1) * length)
        by_group = sorted(numbers, key=lambda number: self._groups[self._stream[number][0]])
        generator = torch.Generator().manual_seed(derive_seed(self._stream.seed, 3, stretch))
        starts = (torch.randperm(self._batches, generator=generator) * self._batch_size).tolist()
        return [number for start in starts for number in by_group[start : start + self._batch_size]]


class ResumableLoader:
    """Batches of a `SampleStream` from any number on, read by `workers` processes.

    Iterating yields batches (images, targets), as `collate` makes them, without end. When `world` processes train
    together, the one of number `rank` gets its own `batch_size` samples of every step. With `aspect_groups`, a group
    number for every sample, batches are made of one group where possible. Errors caused by user input (an unreadable
    image, for example) are raised here unchanged, not wrapped in a worker's traceback.
    """

    def __init__(
        self,
        samples: Samples,
        batch_size: int,
        *,
        seed: int,
        repeats: int = 1,
        aspect_groups: Sequence[int] | None = None,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
        pin_memory: bool = False,
        collate: Collate = default_collate,
    ) -> None:
        self._samples = samples
        self._stream = SampleStream(len(samples), seed, repeats)
        self._numbered = (
            self._stream if aspect_groups is None else GroupedStream(self._stream, aspect_groups, batch_size)
        )
        self._batch_size = batch_size
        self._workers = workers
        self._rank = rank
        self._world = world
        self._pin_memory = pin_memory
        self._collate = partial(_collate_or_error, collate=collate)
        self._delivered = 0

    def __iter__(self) -> Iterator[Any]:
        loader = DataLoader(
            _Seeded(self._samples),
            batch_sampler=self._numbers(),
            num_workers=self._workers,
            collate_fn=self._collate,
            worker_init_fn=_outlive_signals,
            pin_memory=self._pin_memory,
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
            first = (step * self._world + self._rank) * self._batch_size
            yield [self._numbered[number] for number in range(first, first + self._batch_size)]

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
            "training images": self._stream.length,
            "seed": self._stream.seed,
            "repeats": self._stream.repeats,
            "batches of similar shapes": int(self._numbered is not self._stream),
            "batch size": self._batch_size,
            "devices": self._world,
        }


class _Seeded(Dataset[Any]):
    """Samples read under the seed given with their index; the caller's random state is left unchanged."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def __getitem__(self, item: tuple[int, int]) -> Sample | UserError:
        index, seed = item
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                return self._samples[index]
            except UserError as error:
                return error


def _collate_or_error(items: list[Sample | UserError], collate: Collate) -> Any:
    """A batch of the samples, or the first error among them."""
    error = next((item for item in items if isinstance(item, UserError)), None)
    return collate([item for item in items if not isinstance(item, UserError)]) if error is None else error


def _outlive_signals(_worker: int) -> None:
    """Let the main process decide when to stop: Ctrl-C and `timeout` send their signal to every process of the group.

    The main process needs its readers until the end of the step. After SIGTERM a reader exits by itself a while later,
    because multiprocessing also ends its readers by that signal and waits for them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(SECONDS_AFTER_SIGTERM))
