"""`cyclemlp data`: what is in a data set, and what is wrong with it."""

import sys
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING

from cyclemlp.errors import DataError

if TYPE_CHECKING:
    from cyclemlp.data.inspect import DatasetReport, FolderReport, ObjectReport, SplitReport


def data(directory: Path, *, json: bool = False) -> None:
    """Count the images and classes of a data set and list what is wrong with it (exit status 2 if anything).

    Parameters
    ----------
    directory
        Folder with images/{train,val} and masks/{train,val}, with train/CLASS and val/CLASS, of class folders, with
        COCO's train.json, val.json, train/ and val/, with boxes as PASCAL VOC or YOLO have them, or ADE20K, COCO or
        ImageNet as their archives are.
    json
        Print one JSON object instead of text.
    """
    from cyclemlp.data.inspect import inspect_dataset

    report = inspect_dataset(directory)
    sys.stdout.write(dumps(report.to_dict()) if json else _as_text(report))
    sys.stdout.write("\n")
    if report.problems:
        count = len(report.problems)
        listed = f"{count} problems, listed" if count > 1 else "1 problem, listed"
        raise DataError(f"{directory} has {listed} on standard output with what to do about each")


def _as_text(report: "DatasetReport") -> str:
    lines = [f"{report.root}: format {report.format}, {len(report.classes)} classes"]
    for name, split in report.splits.items():
        lines += ["", f"{name}: {split.images:,} images, {split.pixels:,} pixels", *_class_lines(split)]
    lines += ["", "problems:" if report.problems else "no problems found"]
    lines += [f"  {problem}" for problem in report.problems]
    return "\n".join(lines)


def _class_lines(split: "SplitReport | FolderReport | ObjectReport") -> list[str]:
    rows = split.counts()
    total = sum(count for _, count in rows) or 1
    width = max((len(name) for name, _ in rows), default=0)
    return [f"  {name:<{width}}  {count:>15,}  {count / total:>8.3%}" for name, count in rows]
