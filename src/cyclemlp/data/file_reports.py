"""Reading every file of a split, in a given time, and the report of what was counted."""

import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Literal, TypeVar

from cyclemlp.data.image_errors import ImageError, ignore_harmless_warnings
from cyclemlp.data.images import exif_orientation
from cyclemlp.data.problems import Findings
from cyclemlp.data.rasters import decoded_size
from cyclemlp.data.windows import windowed_size
from cyclemlp.progress import progress_bar

Result = TypeVar("Result")


@dataclass(frozen=True)
class SplitReport:
    """Counts of one split. `pixels` are those of the readable images."""

    images: int
    pixels: int
    unit: Literal["pixels", "images", "objects"]
    """What is counted of each class; pixels are those of the readable masks."""
    of_class: dict[str, int]
    ignored: int | None = None
    images_without_objects: int | None = None

    def counts(self) -> list[tuple[str, int]]:
        """What belongs to each class, and what is ignored."""
        return [*self.of_class.items(), *([] if self.ignored is None else [("(ignored)", self.ignored)])]

    def to_dict(self) -> dict[str, object]:
        """As plain values for JSON."""
        values = {
            "images": self.images,
            "pixels": self.pixels,
            f"class_{self.unit}": self.of_class,
            f"ignored_{self.unit}": self.ignored,
            "images_without_objects": self.images_without_objects,
        }
        return {name: value for name, value in values.items() if value is not None}


Reports = dict[str, SplitReport]


@dataclass
class TimeLimit:
    """A time for reading files; of what there is no time for, files spread evenly over the whole are read."""

    seconds: float
    files: int
    """Those still to be read."""
    unread: int = 0
    """Those that there was no time for."""
    started: float = field(default_factory=time.monotonic)

    def deadline_for(self, count: int) -> float:
        """Until when `count` of the files may be read: the rest of the time is shared evenly by the files."""
        now = time.monotonic()
        left = max(0.0, self.started + self.seconds - now)
        share = count / max(self.files, count, 1)
        self.files -= count
        return now + left * share


def read_all(
    read: Callable[[Path], Result],
    paths: Sequence[Path],
    findings: Findings,
    limit: TimeLimit | None = None,
    what: str = "images",
) -> Iterator[tuple[Path, Result]]:
    """`read` of every usable file on all cores (Pillow decodes without the interpreter's lock), with a progress bar."""

    def attempt(path: Path) -> Result | ImageError:
        try:
            return read(path)
        except ImageError as error:
            return error

    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        # Threads that set and restore filters at the same time could lose the one that read_image sets.
        ignore_harmless_warnings()
        try:
            order = range(len(paths)) if limit is None else _spread(len(paths))
            results = pool.map(attempt, (paths[place] for place in order))
            bar = progress_bar(results, what=f"reading {findings.split} {what}", unit="files", total=len(paths))
            in_order = zip(order, bar, strict=True) if limit is None else _in_time(limit, order, bar)
            for place, found in in_order:
                if isinstance(found, ImageError):
                    findings.add_error(found)
                else:
                    yield paths[place], found
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # otherwise Ctrl-C would wait for every file


def _in_time(limit: TimeLimit, order: Sequence[int], results: Iterable[Result]) -> list[tuple[int, Result]]:
    """The results that come before the time is up, by place; at least one."""
    deadline = limit.deadline_for(len(order))
    found: list[tuple[int, Result]] = []
    for place, result in zip(order, results, strict=True):
        found.append((place, result))
        if time.monotonic() > deadline:
            break
    limit.unread += len(order) - len(found)
    return sorted(found, key=itemgetter(0))


def _spread(count: int) -> list[int]:
    """The places 0 to count - 1 in an order whose beginnings are spread evenly over all of them."""
    golden = (5**0.5 - 1) / 2
    return sorted(range(count), key=lambda place: place * golden % 1)


def size_and_orientation(path: Path) -> tuple[tuple[int, int], int]:
    """(height, width) as decoded, and the EXIF orientation. Raises ImageError."""
    return decoded_size(path), 1 if windowed_size(path) else exif_orientation(path)


def orientation_or_1(path: Path) -> int:
    """1 for a file that cannot be read, which is named elsewhere."""
    try:
        return 1 if windowed_size(path) else exif_orientation(path)
    except ImageError:
        return 1
