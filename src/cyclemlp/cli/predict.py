"""`cyclemlp predict`: results and drawings for images and videos that have no labels."""

import sys
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cyclemlp.tasks.options import PredictionOptions
from cyclemlp.tasks.registry import get_task

_NO_OPTIONS = PredictionOptions()


def predict(
    run: Path,
    inputs: list[Path],
    /,
    *,
    out: Path,
    recursive: bool = False,
    every: int = 1,
    options: Annotated[PredictionOptions, Parameter(name="*")] = _NO_OPTIONS,
    device: str = "auto",
    resume: bool = False,
    no_verify: bool = False,
    trust: bool = False,
    json: bool = False,
) -> None:
    """Predict on images and videos, with the results in a folder.

    Segmentation: NAME_mask.png (class ids), NAME_overlay.png and NAME_legend.png for each image. Classification:
    predictions.csv and predictions.json with the most probable classes of all images, and NAME_label.png for each.
    Detection and instance segmentation: NAME_overlay.png for each image, and objects.json, objects.csv and
    coco_results.json for all. For each GeoTIFF NAME_mask.tif or NAME_objects.geojson, where it lies. For each video
    NAME_overlay.mp4, and NAME_frames.json and NAME_frames.csv with the results of each frame.

    Parameters
    ----------
    run
        Run folder written by `cyclemlp train`, its model.safetensors, or an exported file.
    inputs
        Images, videos, folders of them, or patterns such as 'photos/*.jpg'.
    out
        Folder for the results; created where it does not exist.
    recursive
        Read folders within folders, too; results go into folders of the same names.
    every
        Of videos, use the first frame and every N-th frame after it.
    options
        Options that only some tasks have.
    device
        auto, cpu, cuda, cuda:1 or mps.
    resume
        Keep the results that an interrupted command with the same options has written.
    no_verify
        Load weights although they differ from the digest written with them.
    trust
        Load a .pt2 file that was not written by `cyclemlp export` and may run code: only where you know who made it.
    json
        Print one JSON object instead of a line per image or video.
    """
    from cyclemlp import api
    from cyclemlp.inference.predict_videos import video_summary

    done = api.predict(
        run,
        inputs,
        out=out,
        recursive=recursive,
        every=every,
        device=device,
        resume=resume,
        no_verify=no_verify,
        trust=trust,
        **asdict(options),
    )
    if json:
        sys.stdout.writelines(chain(done.json_parts(run), "\n"))
    else:
        task = get_task(done.task)
        for entry in done.images:
            drawing = entry.get(task.drawing[0], entry.get("mask"))
            sys.stdout.write(f"{entry['image']}: {task.summary(entry)}{f' -> {drawing}' if drawing else ''}\n")
        sys.stdout.writelines(f"{entry['video']}: {video_summary(entry)}\n" for entry in done.videos)
    done.raise_failures()
