"""Prediction on many images and videos, with the results in a folder."""

import errno
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from cyclemlp.data.problems import listed
from cyclemlp.errors import ConfigError, DataError, MissingExtraError, PartlyFailedError
from cyclemlp.files import JsonObject, json_list, remove_left_overs
from cyclemlp.inference.entries import Entries
from cyclemlp.inference.evaluate import check_out
from cyclemlp.inference.inputs import Job, find_inputs, plan
from cyclemlp.inference.journal import Journal
from cyclemlp.inference.predict_scenes import predict_scene
from cyclemlp.inference.predict_videos import predict_video, video_files
from cyclemlp.inference.predictor import Predictor
from cyclemlp.progress import progress_bar
from cyclemlp.tasks.base import refuse_foreign_options
from cyclemlp.tasks.options import PredictionOptions

_OF_ONE_FILE = frozenset({errno.ENAMETOOLONG, errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP})
"""System errors that say nothing of the next file; a full disk, say, ends the command."""
SCENE_OPTIONS = ("probabilities", "vector", "simplify")
MAX_NAMED = 100
"""Files that failed, named in a message; all are listed with --json."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Predictions:
    """The entries of the images and videos that were predicted, and the errors of those that failed."""

    task: str
    files: dict[str, str] = field(default_factory=dict)
    """Files about all images together, by kind."""
    images: Entries = field(default_factory=Entries)
    videos: Entries = field(default_factory=Entries)
    failed: list[dict[str, str]] = field(default_factory=list)

    def to_dict(self, run: Path | str) -> JsonObject:
        """As JSON values."""
        entries = {"images": list(self.images), "videos": list(self.videos), "failed": self.failed}
        return {"task": self.task, "run": str(run), **self.files, **entries}

    def json_parts(self, run: Path | str) -> Iterator[str]:
        """The pieces of `to_dict` as JSON in one line, with one image in memory at a time."""
        yield json.dumps({"task": self.task, "run": str(run), **self.files})[:-1]
        for name, entries in (("images", self.images), ("videos", self.videos), ("failed", self.failed)):
            yield f', "{name}": '
            yield from (part.replace("\n", "") for part in json_list(entries))
        yield "}"

    def raise_failures(self, shown: int = 3) -> None:
        """Raise DataError, in one line, if all failed, or PartlyFailedError if some did: the others are written."""
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
        raise PartlyFailedError(f"{len(self.failed)} of {total} {noun} failed, the others are written: {errors}{more}")


def check_request(inputs: Sequence[Path], out: Path, every: int, *, recursive: bool = False) -> dict[Path, Path]:
    """The images and videos to predict, each with the folder below `out` for its results.

    Raises ConfigError and DataError, before any model is loaded.
    """
    check_out(out)
    if every < 1:
        raise ConfigError(f"--every {every} is not allowed: 1 or more")
    return find_inputs(list(inputs), recursive=recursive, out=out)


def predict_files(
    predictor: Predictor,
    sources: Mapping[Path, Path] | Sequence[Path],
    out: Path,
    options: PredictionOptions,
    every: int = 1,
    *,
    resume: bool = False,
) -> Predictions:
    """Predict on `sources` and write the files of the task to `out`, those of each source in its folder below.

    A file that cannot be read is listed in `failed`; the others are predicted all the same. Of videos every `every`-th
    frame is used. What is done is noted in a journal; with `resume` it is not done again. Raises ConfigError for
    options that do not apply to the task, and where `resume` finds results of another network or of other options.
    """
    task = predictor.task
    refuse_foreign_options(task.name, task.prediction_options, asdict(options))
    of_videos = video_files(overlay=not options.no_pictures, coco=task.writes_coco)
    of_scenes = None if task.scenes is None else partial(task.scenes.files, options)
    jobs = plan(sources, out, task.image_files(options), of_videos, of_scenes)
    _refuse_scene_options(jobs, options)
    predictor = predictor.described_as(task.card_for_prediction(predictor.card, options))
    predictor = predictor.with_value_range(options.value_range)
    predictor = predictor.with_options(options) if task.takes_views else predictor
    for folder in {out, *(path.parent for job in jobs for path in job.files.values())}:
        remove_left_overs(folder)
    done = Predictions(task.name)
    request = {"card": predictor.card.to_dict(), "options": asdict(options), "every": every}
    journal = Journal(out, request, resume=resume)
    predict = partial(_predict, predictor, every=every, options=options, resume=resume)
    try:
        for job in progress_bar(jobs, what="predicting", unit="files"):
            predict(job, done=done, journal=journal)
        if done.images:
            done.files.update(task.finish(out, done.images))
    except BaseException:
        journal.close(complete=False)
        count = len(done.images) + len(done.videos)
        _logger.info("%d of %d files are done; the same command with --resume goes on from there", count, len(jobs))
        raise
    journal.close(complete=not done.failed)
    return done


def _refuse_scene_options(jobs: Sequence[Job], options: PredictionOptions) -> None:
    names = [name for name in SCENE_OPTIONS if getattr(options, name) not in (None, False)]
    if names and not any(job.is_scene for job in jobs):
        raise ConfigError(f"--{names[0]} is for scenes, and no input is one: give a GeoTIFF (rasterio reads it)")
    for path in (path for job in jobs if job.is_scene for path in job.files.values()):
        _check_path(path)
    if options.simplify is not None and not (options.simplify >= 0 and options.vector):
        raise ConfigError(f"--simplify {options.simplify:g}: 0 or more pixels, together with --vector")


def _check_path(path: Path) -> None:
    """Raise ConfigError for a place at which the result of a scene cannot be written."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ConfigError(f"--out {path.parent}: GDAL writes to no path that is not UTF-8: choose another") from None
    if path.suffix == ".gpkg" and any(mark in str(path) for mark in "!;"):
        # pyogrio would take a part of the path for an archive or a parameter
        raise ConfigError(f"--vector gpkg cannot be written to a path with ! or ; ({path}): choose another --out")


def _predict(
    predictor: Predictor,
    job: Job,
    every: int,
    options: PredictionOptions,
    done: Predictions,
    journal: Journal,
    *,
    resume: bool,
) -> None:
    source = {"video" if job.is_video else "image": str(job.source)}
    files = {kind: str(path) for kind, path in job.files.items()}
    entries = done.videos if job.is_video else done.images
    if (before := journal.finished(str(job.source), files)) is not None:
        entries.append(before)
        return
    try:
        if job.is_video:
            entry = predict_video(predictor, job, every, options)
        elif job.is_scene and predictor.task.scenes is not None:
            entry = predict_scene(predictor, predictor.task.scenes, job, options, resume=resume)
        else:
            result = predictor.predict(job.source, progress=True)
            predictor.task.write(result, job.files, options)
            measured = predictor.task.describe_objects(result) if options.objects else {}
            entry = {**predictor.task.describe(result), **measured}
    except (DataError, MissingExtraError) as error:
        done.failed.append({**source, "error": str(error)})
        return
    except MemoryError:
        done.failed.append({**source, "error": f"{job.source} needs more memory than there is"})
        return
    except OSError as error:
        if error.errno not in _OF_ONE_FILE:
            raise
        done.failed.append({**source, "error": f"{error.filename or job.source}: {error.strerror}"})
        return
    whole = {**source, **files, **entry}
    entries.append(whole)
    journal.add(str(job.source), whole)
