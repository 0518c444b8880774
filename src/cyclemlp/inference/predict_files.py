"""Prediction on many images and videos, with the results in a folder."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cyclemlp.data.problems import listed
from cyclemlp.errors import ConfigError, DataError, MissingExtraError
from cyclemlp.files import JsonObject
from cyclemlp.inference.evaluate import check_out
from cyclemlp.inference.inputs import Job, find_inputs, plan
from cyclemlp.inference.predict_videos import predict_video, video_files
from cyclemlp.inference.predictor import Predictor
from cyclemlp.progress import progress_bar
from cyclemlp.tasks.base import refuse_foreign_options
from cyclemlp.tasks.options import PredictionOptions

MAX_NAMED = 100
"""Files that failed, named in a message; all are listed with --json."""


@dataclass(frozen=True)
class Predictions:
    """The entries of the images and videos that were predicted, and the errors of those that failed."""

    task: str
    files: dict[str, str] = field(default_factory=dict)
    """Files about all images together, by kind."""
    images: list[JsonObject] = field(default_factory=list)
    videos: list[JsonObject] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)

    def to_dict(self, run: Path | str) -> JsonObject:
        """As JSON values."""
        entries = {"images": self.images, "videos": self.videos, "failed": self.failed}
        return {"task": self.task, "run": str(run), **self.files, **entries}

    def raise_failures(self, shown: int = 3) -> None:
        """Raise DataError, in one line, if anything failed; everything else has been written."""
        if not self.failed:
            return
        total = len(self.images) + len(self.videos) + len(self.failed)
        errors = "; ".join(entry["error"] for entry in self.failed[:shown])
        if total == 1:
            raise DataError(errors)
        noun = "files" if self.videos or any("video" in entry for entry in self.failed) else "images"
        others = [Path(entry.get("image") or entry["video"]).name for entry in self.failed[shown:]]
        more = f"; and {len(others)} more: {listed(others, MAX_NAMED)}" if others else ""
        if len(self.failed) == total:
            raise DataError(f"all {total} {noun} failed: {errors}{more}")
        raise DataError(f"{len(self.failed)} of {total} {noun} failed, the others are written: {errors}{more}")


def check_request(inputs: Sequence[Path], out: Path, every: int) -> list[Path]:
    """The images and videos to predict. Raises ConfigError and DataError, before any model is loaded."""
    check_out(out)
    if every < 1:
        raise ConfigError(f"--every {every} is not allowed: 1 or more")
    return find_inputs(list(inputs))


def predict_files(
    predictor: Predictor, sources: Sequence[Path], out: Path, options: PredictionOptions, every: int = 1
) -> Predictions:
    """Predict on `sources` and write the files of the task to `out`.

    A file that cannot be read is listed in `failed`; the others are predicted all the same. Of videos every `every`-th
    frame is used. Raises ConfigError for options that do not apply to the task.
    """
    task = predictor.task
    refuse_foreign_options(task.name, task.prediction_options, asdict(options))
    of_videos = video_files(overlay=not options.no_pictures, coco=task.writes_coco)
    jobs = plan(list(sources), out, task.image_files(options), of_videos)
    predictor = predictor.described_as(task.card_for_prediction(predictor.card, options))
    predictor = predictor.with_options(options) if task.takes_views else predictor
    done = Predictions(task.name)
    for job in progress_bar(jobs, what="predicting", unit="files"):
        _predict(predictor, job, every, options, done)
    if done.images:
        done.files.update(task.finish(out, done.images))
    return done


def _predict(predictor: Predictor, job: Job, every: int, options: PredictionOptions, done: Predictions) -> None:
    source = {"video" if job.is_video else "image": str(job.source)}
    try:
        if job.is_video:
            entry = predict_video(predictor, job, every, options)
        else:
            result = predictor.predict(job.source, progress=True)
            predictor.task.write(result, job.files, options)
            measured = predictor.task.describe_objects(result) if options.objects else {}
            entry = {**predictor.task.describe(result), **measured}
    except (DataError, MissingExtraError) as error:
        done.failed.append({**source, "error": str(error)})
        return
    files = {kind: str(path) for kind, path in job.files.items()}
    (done.videos if job.is_video else done.images).append({**source, **files, **entry})
