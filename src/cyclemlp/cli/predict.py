"""`cyclemlp predict`: results and pictures for images and videos that have no labels, whatever the task."""

import io
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, cast

from cyclopts import Parameter

from cyclemlp.cli.jobs import Job, find_inputs, plan
from cyclemlp.cli.task_modules import refuse_foreign_options, task_module
from cyclemlp.cli.videos import predict_video, video_endings, video_line
from cyclemlp.errors import ConfigError, DataError, MissingExtraError
from cyclemlp.files import atomic_write

if TYPE_CHECKING:
    from PIL.Image import Image

    from cyclemlp.inference.predictor import Predictor


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
    """Segmentation, detection: look at each image at several factors of its usual size, such as 0.75 1 1.5; masks are averaged, of boxes the likeliest stays; better and slower."""  # noqa: E501
    flip: bool = False
    """Segmentation, detection: look at each image mirrored left to right as well."""
    window: int | None = None
    """Segmentation, detection: look at each image in windows of this edge, in network pixels; by default only at large images."""  # noqa: E501
    overlap: int | None = None
    """Network pixels that windows share; objects that are larger may be found in pieces."""


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

    COCO: bool
    """Whether what it tells has entries of COCO's results, under `coco`."""

    def told(self, result: Any) -> dict[str, Any]:
        """What the JSON says of an image or a frame; its size among it."""
        ...

    def write(self, result: Any, job: Job) -> dict[str, Any]:
        """Write the files of an image, and return what the JSON says of it beside its name and files."""
        ...

    def columns(self, classes: Sequence[str]) -> Sequence[str]:
        """Names of the columns in the table of a video, behind the frame's number and time."""
        ...

    def rows(self, entry: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """The rows of a frame in that table."""
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
    every: int = 1,
    options: Annotated[PredictionOptions, Parameter(name="*")] = _NO_OPTIONS,
    device: str = "auto",
    json: bool = False,
) -> None:
    """Predict on images and videos, with the results in a folder.

    Segmentation: NAME_mask.png (class ids) and NAME_overlay.png for each image. Classification: predictions.csv and
    predictions.json with the likeliest classes of all images, and NAME_label.png for each. Detection and instance
    segmentation: NAME_overlay.png for each image, and objects.json, objects.csv and coco_results.json for all. For each
    video NAME_overlay.mp4, and NAME_frames.json and NAME_frames.csv with the results of each frame.

    Parameters
    ----------
    run
        Run folder written by `cyclemlp train`, its model.safetensors, or an exported file.
    inputs
        Images, videos, folders of them, or patterns such as 'photos/*.jpg'.
    out
        Folder for the results; made where it does not exist.
    every
        Of videos, look at the first frame and every so many after it.
    options
        Options of some tasks only.
    device
        auto, cpu, cuda, cuda:1 or mps.
    json
        Print one JSON object instead of a line per image or video.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file: give a folder")
    if every < 1:
        raise ConfigError(f"--every {every} is not allowed: 1 or more")
    sources = find_inputs(inputs)  # first, since it is quick to say no

    from cyclemlp.inference.predictor import Predictor

    predictor = Predictor.load(run, device)
    task = predictor.card.task
    module = cast("Prediction", task_module("predict", task))
    refuse_foreign_options(task, module.OPTIONS, asdict(options))
    of_videos = video_endings(pictures=not options.no_pictures, coco=module.COCO)
    jobs = plan(sources, out, module.endings(options), of_videos)
    done = _predict_all(module.prepare(predictor, options), module, jobs, every)
    files = module.finish(out, done.images) if done.images else {}
    if json and (done.images or done.videos):
        sys.stdout.write(dumps({"task": task, "run": str(run), **files, **asdict(done)}) + "\n")
    elif not json:
        sys.stdout.writelines(f"{entry['image']}: {module.line(entry)}\n" for entry in done.images)
        sys.stdout.writelines(f"{entry['video']}: {video_line(entry)}\n" for entry in done.videos)
    _report_failures(done.failed, jobs)


@dataclass(frozen=True)
class _Done:
    """What the JSON says of the images and the videos that worked, and of what did not."""

    images: list[dict[str, Any]] = field(default_factory=list)
    videos: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)


def _predict_all(predictor: "Predictor", module: Prediction, jobs: Sequence[Job], every: int) -> _Done:
    from tqdm import tqdm

    done = _Done()
    for job in tqdm(jobs, unit="img", desc="predict", disable=None, leave=False):
        kind = "video" if job.is_video else "image"
        try:
            if job.is_video:
                told = predict_video(predictor, module, job, every)
            else:
                told = module.write(predictor.predict(job.source, progress=True), job)
        except (DataError, MissingExtraError) as error:
            done.failed.append({kind: str(job.source), "error": str(error)})
            continue
        files = {name: str(path) for name, path in job.files.items()}
        (done.videos if job.is_video else done.images).append({kind: str(job.source), **files, **told})
    return done


def write_png(path: Path, picture: "Image") -> None:
    """Write a picture; encoded in memory first, since Pillow's own errors when a disk is full do not say so."""
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    with atomic_write(path) as part:
        part.write_bytes(encoded.getbuffer())


def _report_failures(failed: list[dict[str, str]], jobs: Sequence[Job], shown: int = 3) -> None:
    """Raise DataError, one line, where something failed; the rest has been written by then."""
    if not failed:
        return
    errors = "; ".join(entry["error"] for entry in failed[:shown])
    if len(jobs) == 1:
        raise DataError(errors)
    kind = "files" if any(job.is_video for job in jobs) else "images"
    more = f"; and {len(failed) - shown} more" if len(failed) > shown else ""
    if len(failed) == len(jobs):
        raise DataError(f"all {len(jobs)} {kind} failed: {errors}{more}")
    raise DataError(f"{len(failed)} of {len(jobs)} {kind} failed, the others are written: {errors}{more}")
