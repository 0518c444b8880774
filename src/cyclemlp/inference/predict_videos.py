"""Prediction on a video: the video with results drawn in, and the results of each frame."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from cyclemlp.errors import DataError
from cyclemlp.files import JsonMapping, JsonObject, atomic_write
from cyclemlp.inference.inputs import Job
from cyclemlp.inference.predictor import Predictor
from cyclemlp.progress import progress_bar
from cyclemlp.tasks.card import ModelCard
from cyclemlp.tasks.options import PredictionOptions

if TYPE_CHECKING:
    from cyclemlp.data.videos import Frame

OVERLAY, FRAMES, TABLE, COCO = "overlay", "frames", "table", "coco_results"
_SUFFIXES = {OVERLAY: "_overlay.mp4", FRAMES: "_frames.json", TABLE: "_frames.csv", COCO: "_coco_results.json"}
_FRAME_BANDS, _FRAME_WHITE = 3, 255
_NOT_PER_FRAME = ("size", "coco")
"""Parts of a task's description that are the same for all frames, or have a file of their own."""


def video_files(*, overlay: bool, coco: bool) -> dict[str, str]:
    """Kind of file to the suffix of its name, with or without a video and COCO's results."""
    left_out = {OVERLAY: not overlay, COCO: not coco}
    return {kind: suffix for kind, suffix in _SUFFIXES.items() if not left_out.get(kind, False)}


def predict_video(predictor: Predictor, job: Job, every: int, options: PredictionOptions) -> JsonObject:
    """Write the files of a video from every `every`-th frame, and return its entry in the JSON, without name and files.

    Raises DataError, MissingExtraError; then, and when it is stopped, none of the files is written.
    """
    from cyclemlp.data.videos import open_video, written_video

    _check_values(predictor.card, job.source)
    task = predictor.task
    # Shares of classes change from frame to frame, so a legend belongs to the frame.
    options = replace(options, legend="inside") if options.legend is None else options
    with ExitStack() as stack:
        video = stack.enter_context(open_video(job.source))
        rate = video.rate / every
        files = _FrameFiles(stack, job.files, task.columns(predictor.card.classes))
        overlay = stack.enter_context(written_video(job.files[OVERLAY], rate)) if OVERLAY in job.files else None
        total = None if video.length is None else -(-video.length // every)
        entry: JsonObject = {}
        frames = video.frames(every)
        for frame in progress_bar(frames, what=job.source.name, unit="frames", total=total):
            result = predictor.predict(frame.pixels)
            entry = {**task.describe(result), **(task.describe_objects(result) if options.objects else {})}
            files.add(frame, entry, task.rows(entry))
            if overlay is not None:
                overlay.add(task.draw(result, options))
        return {"size": entry["size"], "count": files.count, "every": every, "frames_per_second": float(rate)}


def _check_values(card: ModelCard, source: Path) -> None:
    """Raise DataError for a network on images of other bands or values than frames, which are RGB of 8 bits."""
    if card.bands and card.file_bands != _FRAME_BANDS:
        bands = f"{card.file_bands} band{'s' * (card.file_bands != 1)}"
        raise DataError(f"{source} is a video of RGB frames, but the model was trained on images of {bands}: give such")
    if card.values == "fixed" and max(card.value_range) > _FRAME_WHITE:
        ends = " to ".join(f"{end:g}" for end in card.value_range[:2])
        raise DataError(f"{source} is a video of values 0 to 255, but the model's range is {ends}: --value-range 0 255")


def video_summary(entry: JsonMapping) -> str:
    """One line about a video, after its name."""
    count = entry["count"]
    return f"{count} frame{'s' * (count != 1)} -> {entry.get(OVERLAY, entry[FRAMES])}"


class _FrameFiles:
    """A JSON list and a table of the frames, and for detectors COCO's results with the frame's number as image id.

    They appear when the block of `stack` succeeds, or not at all.
    """

    def __init__(self, stack: ExitStack, files: Mapping[str, Path], columns: Sequence[str]) -> None:
        self.count = 0
        self._frames = stack.enter_context(_json_list(files[FRAMES]))
        self._results = stack.enter_context(_json_list(files[COCO])) if COCO in files else None
        self._table = csv.writer(stack.enter_context(_text_file(files[TABLE])), lineterminator="\n")
        self._table.writerow(["frame", "seconds", *columns])

    def add(self, frame: "Frame", entry: JsonMapping, rows: Iterable[Sequence[Any]]) -> None:
        place = {"frame": frame.number, "seconds": round(frame.seconds, 4)}
        self._frames({**place, **{key: value for key, value in entry.items() if key not in _NOT_PER_FRAME}})
        self._table.writerows([*place.values(), *row] for row in rows)
        if self._results is not None:
            for found in entry["coco"]:
                self._results({"image_id": frame.number, **found})
        self.count += 1


@contextmanager
def _json_list(path: Path) -> Iterator[Callable[[JsonMapping], object]]:
    """Writes a JSON list entry by entry, since the list of a long video may not fit in memory."""
    starts = chain(["[\n"], repeat(",\n"))
    with _text_file(path) as file:
        yield lambda entry: file.write(next(starts) + json.dumps(entry))
        file.write("[]\n" if next(starts) == "[\n" else "\n]\n")


@contextmanager
def _text_file(path: Path) -> Iterator[TextIO]:
    with atomic_write(path) as part, part.open("w", encoding="utf-8") as file:
        yield file
