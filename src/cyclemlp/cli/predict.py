"""`cyclemlp predict`: results and pictures for images that have no labels, whatever the task."""

import glob
import io
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, cast

from cyclopts import Parameter

from cyclemlp.cli.task_modules import refuse_foreign_options, task_module
from cyclemlp.errors import ConfigError, DataError
from cyclemlp.files import whole_file

if TYPE_CHECKING:
    from PIL.Image import Image

    from cyclemlp.inference.predictor import Predictor


@dataclass(frozen=True)
class Job:
    """An image and the files written for it."""

    image: Path
    files: Mapping[str, Path]
    """Kind of file, such as `mask`, to its place."""


@dataclass(frozen=True)
class PredictionOptions:
    """Options of some tasks only."""

    no_pictures: bool = False
    """Classification and detection: no pictures, only the files about all images."""
    score_threshold: float | None = None
    """Detection: objects of lower scores are left out; 0.3 by default."""
    nms: float | None = None
    """Detection: of two objects of a class whose boxes overlap (IoU) by more than this the likelier stays; by default as trained, and for masks no more than that."""  # noqa: E501
    scales: Annotated[tuple[float, ...] | None, Parameter(consume_multiple=True)] = None
    """Segmentation: look at each image at several factors of its usual size, such as 0.5 0.75 1 1.25 1.5 1.75, and average; better and slower."""  # noqa: E501
    flip: bool = False
    """Segmentation: look at each image mirrored left to right as well, and average."""


_NO_OPTIONS = PredictionOptions()


class Prediction(Protocol):
    """What a module `predict_TASK` has."""

    OPTIONS: Collection[str]
    """Fields of `PredictionOptions` that this task takes."""

    def prepare(self, predictor: "Predictor", options: PredictionOptions) -> "Predictor":
        """The predictor as the options want it."""
        ...

    def endings(self, options: PredictionOptions) -> Mapping[str, str]:
        """Kind of file to the ending of its name: `{"mask": "_mask.png"}` makes NAME_mask.png for each image."""
        ...

    def write(self, result: Any, job: Job) -> dict[str, Any]:
        """Write the files of an image, and return what the JSON says of it beside its name and files."""
        ...

    def line(self, entry: Mapping[str, Any]) -> str:
        """What the text says of an image, behind its name, from its entry in the JSON."""
        ...

    def finish(self, out: Path, entries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """Write what is about all images together; kinds of file to their places."""
        ...


def predict(
    run: Path,
    inputs: list[Path],
    /,
    *,
    out: Path,
    options: Annotated[PredictionOptions, Parameter(name="*")] = _NO_OPTIONS,
    device: str = "auto",
    json: bool = False,
) -> None:
    """Predict on images, with the results in a folder.

    Segmentation: NAME_mask.png (class ids) and NAME_overlay.png for each image. Classification: predictions.csv and
    predictions.json with the likeliest classes of all images, and NAME_label.png for each. Detection and instance
    segmentation: NAME_overlay.png for each image, and objects.json, objects.csv and coco_results.json for all.

    Parameters
    ----------
    run
        Run folder written by `cyclemlp train`, its model.safetensors, or an exported file.
    inputs
        Images, folders of images, or patterns such as 'photos/*.jpg'.
    out
        Folder for the results; made where it does not exist.
    options
        Options of some tasks only.
    device
        auto, cpu, cuda, cuda:1 or mps.
    json
        Print one JSON object instead of a line per image.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file: give a folder")
    images = find_images(inputs)  # first, since it is quick to say no

    from cyclemlp.inference.predictor import Predictor

    predictor = Predictor.load(run, device)
    task = predictor.card.task
    module = cast("Prediction", task_module("predict", task))
    refuse_foreign_options(task, module.OPTIONS, asdict(options))
    jobs = plan(images, out, module.endings(options))
    predictor = module.prepare(predictor, options)
    written, failed = _predict_all(predictor, module, jobs)
    files = module.finish(out, written) if written else {}
    if json and written:
        report = {"task": task, "run": str(run), **files, "images": written, "failed": failed}
        sys.stdout.write(dumps(report) + "\n")
    else:
        sys.stdout.writelines(f"{entry['image']}: {module.line(entry)}\n" for entry in written)
    _report_failures(failed, len(jobs))


def _predict_all(
    predictor: "Predictor", module: Prediction, jobs: Sequence[Job]
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Entries of the images that worked, and of those that did not."""
    from tqdm import tqdm

    written: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    for job in tqdm(jobs, unit="img", desc="predict", disable=None, leave=False):
        try:
            told = module.write(predictor.predict(job.image, progress=True), job)
        except DataError as error:
            failed.append({"image": str(job.image), "error": str(error)})
            continue
        files = {kind: str(path) for kind, path in job.files.items()}
        written.append({"image": str(job.image), **files, **told})
    return written, failed


def find_images(inputs: list[Path]) -> list[Path]:
    """The images that files, folders and patterns stand for, each once, in the order given.

    Raises DataError where an input does not exist, a pattern fits nothing, or a folder has no image.
    """
    found: dict[Path, Path] = {}
    for given in inputs:
        for image in _expanded(given):
            found.setdefault(image.resolve(), image)
    return list(found.values())


def _expanded(given: Path) -> list[Path]:
    from cyclemlp.data.images import IMAGE_SUFFIXES, list_images

    if given.is_dir():
        images = list_images(given)
        if not images:
            suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
            raise DataError(f"{given} has no images directly in it: looked for {suffixes}")
        return images
    if given.exists():
        return [given]
    if not glob.has_magic(str(given)):
        raise DataError(f"{given} does not exist: give an image, a folder of images, or a pattern")
    # Path.glob takes no absolute pattern.
    matches = [Path(name) for name in sorted(glob.glob(str(given), recursive=True))]  # noqa: PTH207
    images = [match for match in matches if match.suffix.lower() in IMAGE_SUFFIXES and match.is_file()]
    if not images:
        raise DataError(f"{given} fits no image: correct the pattern")
    return images


def plan(images: list[Path], out: Path, endings: Mapping[str, str]) -> list[Job]:
    """Where everything will be written, decided before anything is.

    Images of one name get numbered names. Raises ConfigError where a file would replace one of the images.
    """
    given = {_identity(image) for image in images}
    stems = {image.stem.casefold() for image in images}
    taken: set[str] = set()
    jobs = []
    for image in images:
        name = _free_name(image.stem, taken, stems)
        taken.add(name.casefold())
        jobs.append(Job(image, {kind: out / f"{name}{ending}" for kind, ending in endings.items()}))
    for path in (path for job in jobs for path in job.files.values()):
        if _identity(path) in given:
            raise ConfigError(f"--out {out}: {path.name} would replace an input; choose another folder")
    return jobs


def _identity(path: Path) -> str:
    """Equal for paths of one file, also where the file system ignores case."""
    return str(path.resolve()).casefold()


def _free_name(stem: str, taken: set[str], stems: set[str]) -> str:
    """`stem`, or `stem-2`, `stem-3`, ... where it is taken; never a name that another image has by itself."""
    if stem.casefold() not in taken:
        return stem
    number = 2
    while (name := f"{stem}-{number}".casefold()) in taken or name in stems:
        number += 1
    return f"{stem}-{number}"


def write_png(path: Path, picture: "Image") -> None:
    """Write a picture; encoded in memory first, since Pillow's own errors when a disk is full do not say so."""
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    with whole_file(path) as part:
        part.write_bytes(encoded.getbuffer())


def _report_failures(failed: list[dict[str, str]], total: int, shown: int = 3) -> None:
    """Raise DataError, one line, where images failed; the others have been written by then."""
    if not failed:
        return
    errors = "; ".join(entry["error"] for entry in failed[:shown])
    if total == 1:
        raise DataError(errors)
    more = f"; and {len(failed) - shown} more" if len(failed) > shown else ""
    if len(failed) == total:
        raise DataError(f"all {total} images failed: {errors}{more}")
    raise DataError(f"{len(failed)} of {total} images failed, the others are written: {errors}{more}")
