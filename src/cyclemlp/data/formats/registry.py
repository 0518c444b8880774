"""The annotation formats: how a folder is recognised, and how it is read into the data set of a task.

A format is one module in this package that calls `register`; nothing else names it. Every module here is imported
the first time a data set is looked for. Recognising a folder is cheap: it looks at the names of files and folders and
at small text files, loads no torch and decodes no image.
"""

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Generic, TypeVar, cast

from cyclemlp.data import formats
from cyclemlp.data.datasets import ClassifiedDataset
from cyclemlp.data.folders import entries_of
from cyclemlp.data.held_out import hold_out
from cyclemlp.data.masks import MaskDataset
from cyclemlp.data.objects import DetectionDataset
from cyclemlp.data.problems import DataRequest, Findings
from cyclemlp.errors import DataError

Dataset = TypeVar("Dataset", MaskDataset, DetectionDataset, ClassifiedDataset)

# In the order in which they are tried: nearly every folder of folders resembles class folders.
_LABELS: dict[type, str] = {MaskDataset: "masks", DetectionDataset: "boxes", ClassifiedDataset: "class labels"}


@dataclass(frozen=True)
class DatasetFormat(Generic[Dataset]):
    """One way to write down labels."""

    name: str
    """As `cyclemlp data` reports it."""
    dataset_type: type[Dataset]
    """What the format is read into, which decides the tasks that can use it."""
    layout: str
    """Where its files are, in words for a message."""
    recognises: Callable[[Path], bool]
    """Whether a folder looks like this format."""
    read: Callable[[Path, Findings], Dataset]
    """Reads and checks the annotations, and images at most by their headers; what is wrong is added to the findings."""
    complete: Callable[[Dataset], Dataset] = lambda dataset: dataset
    """Adds to a sound data set what takes decoding to find out."""
    pairing: str = ""
    """Of masks: what pairs an image with its mask, in words."""
    explicit: bool = False
    """Whether a file says what the data are, so that this goes before formats known by their folders."""


MAX_DESCRIBED = 150
"""Characters of a message that describe formats in full."""
FOR_TRAINING = DataRequest()
AnyDataset = MaskDataset | DetectionDataset | ClassifiedDataset
AnyFormat = DatasetFormat[MaskDataset] | DatasetFormat[DetectionDataset] | DatasetFormat[ClassifiedDataset]

_registered: list[AnyFormat] = []


def register(known: AnyFormat) -> None:
    """Make a format known to training, evaluation and `cyclemlp data`."""
    _registered.append(known)


def all_formats() -> list[AnyFormat]:
    """Every format, in the order in which they are tried."""
    _import_formats()
    return sorted(_registered, key=lambda known: list(_LABELS).index(known.dataset_type))


def format_of(root: Path, dataset_type: type[Dataset]) -> DatasetFormat[Dataset]:
    """The format of a folder among those for this type of data set. Raises DataError if there is none."""
    return cast("DatasetFormat[Dataset]", any_format_of(root, dataset_type))


def any_format_of(root: Path, dataset_type: type) -> AnyFormat:
    """The same, where the type is known at run time alone."""
    known = [each for each in all_formats() if each.dataset_type is dataset_type]
    return find_format(root, known, f" with {_LABELS[dataset_type]}")


def find_format(root: Path, known: Sequence[AnyFormat], labels: str = "") -> AnyFormat:
    """The first of these formats that a folder looks like. Raises DataError that names them if there is none."""
    layouts = _layouts(known)
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "is missing"
        raise DataError(f"{root} {what}; give a folder with {layouts}")
    if not any(entries_of(root)):
        raise DataError(f"{root} is empty; fill it with {layouts}")
    if (found := recognised(root, known)) is not None:
        return found
    inner = (path for path in (*root.glob("*/"), *root.glob("VOCdevkit/*/")) if recognised(path, known))
    if (nested := next(inner, None)) is not None:
        raise DataError(f"{root} is not a data set{labels}, but {nested} is: give that folder")
    raise DataError(f"{root} is not a data set{labels}; expected {layouts}")


def _layouts(known: Sequence[AnyFormat]) -> str:
    """Where the files of these formats are; without the details where that would be a long text."""
    described = ", or ".join(each.layout for each in known)
    if len(described) <= MAX_DESCRIBED:
        return described
    *others, last = (each.layout.partition(" (")[0] for each in known)
    return f"{', '.join(others)} or {last} (cyclemlp data --help)"


def recognised(root: Path, known: Sequence[AnyFormat]) -> AnyFormat | None:
    """The first of these formats that a folder looks like, if any."""
    return next((each for each in sorted(known, key=lambda each: not each.explicit) if each.recognises(root)), None)


def find_dataset(root: Path, dataset_type: type[Dataset], request: DataRequest = FOR_TRAINING) -> Dataset:
    """The data set in a folder, of whichever format, for training or for what is requested.

    Annotations are read and checked, and images at most by their headers. Raises DataError for the first problem, with
    the number of further ones; single objects that are left out or cut to their image are one line in the log.
    """
    found, findings = format_of(root, dataset_type), Findings(request=request)
    dataset = found.read(root, findings)
    findings.check(root)
    if request.hold_out is not None:
        dataset = hold_out(dataset, request.hold_out)
    return found.complete(dataset)


@cache
def _import_formats() -> None:
    for module in pkgutil.iter_modules(formats.__path__):
        importlib.import_module(f"{formats.__name__}.{module.name}")
