"""`cyclemlp eval`: the scores of a trained model on labelled images."""

import sys
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cyclemlp.files import JsonMapping
from cyclemlp.tasks.options import EvaluationOptions
from cyclemlp.tasks.registry import get_task

_NO_OPTIONS = EvaluationOptions()


def evaluate(
    run: Path,
    /,
    *,
    data: Path | None = None,
    split: str = "val",
    out: Path | None = None,
    options: Annotated[EvaluationOptions, Parameter(name="*")] = _NO_OPTIONS,
    device: str = "auto",
    allow_outside: bool = False,
    no_verify: bool = False,
    trust: bool = False,
    json: bool = False,
) -> None:
    """Evaluate a trained model on labelled images, with the scores of its task.

    Segmentation: IoU of each class, their mean, and pixel accuracy, exact over whole images. Classification: top-1 and
    top-5 accuracy, accuracy of each class, and with --out the confusion matrix and the images that were predicted as
    another class. Detection and instance segmentation: average precision by COCO's rules.

    Parameters
    ----------
    run
        Run folder written by `cyclemlp train`, its model.safetensors, or an exported file.
    data
        Folder in the format the task is trained on; by default the one the run was trained on.
    split
        Which part of the data: val, train, or another one that exists.
    out
        Folder for scores.json and the further files of the task; created where it does not exist.
    options
        Options that only some tasks have.
    device
        auto, cpu, cuda, cuda:1 or mps.
    allow_outside
        Read images outside of the data folder where its annotations name them.
    no_verify
        Load weights although they differ from the digest written with them.
    trust
        Load a .pt2 file that was not written by `cyclemlp export` and may run code: only where you know who made it.
    json
        Print one JSON object instead of a table.
    """
    from cyclemlp import api

    report = api.evaluate(
        run,
        data=data,
        split=split,
        out=out,
        device=device,
        allow_outside=allow_outside,
        no_verify=no_verify,
        trust=trust,
        **asdict(options),
    )
    sys.stdout.write(dumps(report) + "\n" if json else "\n".join(_table(report)) + "\n")


def _table(report: JsonMapping) -> list[str]:
    images = f"{report['images']} image" + "s" * (report["images"] != 1)
    title = f"{report['model']} on {images} of {report['data']}, split {report['split']}"
    return [title, *_views(report), *get_task(report["task"]).score_table(report)]


def _views(report: JsonMapping) -> list[str]:
    """A line on the views that the predictions come from, where there were several."""
    if "scales" not in report:
        return []
    scales = " ".join(f"{scale:g}" for scale in report["scales"])
    how = get_task(report["task"]).combines_views
    return [f"{how} scales {scales}" + (", each mirrored as well" if report["flip"] else "")]
