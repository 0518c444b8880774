"""`cyclemlp predict`: masks and pictures for images that have no labels."""

import glob
import io
import sys
from dataclasses import dataclass
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclemlp.errors import ConfigError, DataError
from cyclemlp.files import whole_file

if TYPE_CHECKING:
    from PIL.Image import Image

    from cyclemlp.inference.predictor import Predictor


def predict(run: Path, inputs: list[Path], /, *, out: Path, json: bool = False) -> None:
    """Predict the class of every pixel: writes NAME_mask.png (class ids) and NAME_overlay.png per image.

    Parameters
    ----------
    run
        Run folder written by `cyclemlp train`, or its model.safetensors.
    inputs
        Images, folders of images, or patterns such as 'photos/*.jpg'.
    out
        Folder for the pictures; made where it does not exist.
    json
        Print one JSON object instead of a line per image.
    """
    jobs = plan(find_images(inputs), out)  # first, since it is quick to say no

    from tqdm import tqdm

    from cyclemlp.inference.predictor import Predictor

    predictor = Predictor.load(run)
    written: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    for job in tqdm(jobs, unit="img", desc="predict", disable=None, leave=False):
        try:
            written.append(_predict_one(predictor, job))
        except DataError as error:
            failed.append({"image": str(job.image), "error": str(error)})
    if json and written:
        report = {"task": predictor.card.task, "run": str(run), "images": written, "failed": failed}
        sys.stdout.write(dumps(report) + "\n")
    else:
        sys.stdout.writelines(map(_line, written))
    _report_failures(failed, len(jobs))


@dataclass(frozen=True)
class Job:
    """An image and the files written for it."""

    image: Path
    mask: Path
    overlay: Path


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


def plan(images: list[Path], out: Path) -> list[Job]:
    """Where everything will be written, decided before anything is.

    Images of one name get numbered names. Raises ConfigError where `out` is a file, and where a picture would
    replace one of the images.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file: give a folder")
    given = {_identity(image) for image in images}
    stems = {image.stem.casefold() for image in images}
    taken: set[str] = set()
    jobs = []
    for image in images:
        name = _free_name(image.stem, taken, stems)
        taken.add(name.casefold())
        jobs.append(Job(image, out / f"{name}_mask.png", out / f"{name}_overlay.png"))
    for job in jobs:
        for path in (job.mask, job.overlay):
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


def _predict_one(predictor: "Predictor", job: Job) -> dict[str, Any]:
    result = predictor.predict(job.image, progress=True)
    _write_png(job.mask, result.class_image())
    _write_png(job.overlay, result.draw())
    summary = result.to_dict()
    paths = {"image": str(job.image), "mask": str(job.mask), "overlay": str(job.overlay)}
    return {**paths, "size": summary["size"], "shares": summary["shares"]}


def _write_png(path: Path, picture: "Image") -> None:
    """Encoded in memory first: Pillow's own errors when a disk is full do not say so."""
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    with whole_file(path) as part:
        part.write_bytes(encoded.getbuffer())


def _line(entry: dict[str, Any]) -> str:
    largest = sorted(entry["shares"].items(), key=lambda item: -item[1])[:5]
    shares = ", ".join(f"{name} {share * 100:.1f} %" for name, share in largest if share)
    return f"{entry['image']}: {shares} -> {entry['overlay']}\n"


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
