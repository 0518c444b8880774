"""`cyclemlp data`: what is in a data set, and what is wrong with it."""

import sys
from collections.abc import Mapping
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from cyclemlp.data.class_choice import ClassChoice
from cyclemlp.data.held_out import ValidationOptions
from cyclemlp.errors import ConfigError, DataError

if TYPE_CHECKING:
    from cyclemlp.data.file_reports import SplitReport
    from cyclemlp.data.inspect import DatasetReport


SHEET_SUFFIXES = (".png", ".jpg", ".jpeg")
MAX_SHEET_IMAGES = 600
_ALL_CLASSES = ClassChoice()
_NOTHING_HELD_OUT = ValidationOptions()


def data(
    directory: Path,
    *,
    sheet: Path | None = None,
    sheet_images: int = 24,
    validation: Annotated[ValidationOptions, Parameter(name="*")] = _NOTHING_HELD_OUT,
    seed: int = 0,
    palette: Path | None = None,
    label_field: str | None = None,
    class_choice: Annotated[ClassChoice, Parameter(name="*", consume_multiple=True)] = _ALL_CLASSES,
    prepare: Path | None = None,
    allow_outside: bool = False,
    json: bool = False,
) -> None:
    """Count the images and classes of a data set and list what is wrong with it (exit status 2 if anything).

    Parameters
    ----------
    directory
        Folder with masks (images/{train,val} and masks/{train,val}, a CSV or YAML of pairs, or data.yaml), with boxes
        or outlines (COCO's train.json, val.json, train/ and val/, PASCAL VOC or YOLO), or with class folders
        (train/CLASS and val/CLASS, or CLASS alone); or an archive of ADE20K, COCO or ImageNet.
    sheet
        Image to write (.png or .jpg): a contact sheet of some images with their labels.
    sheet_images
        How many images it has, spread evenly over classes or files, three quarters of the training split.
    validation
        What is held out for validation where there is no such split, as `cyclemlp train` does.
    seed
        Seed of --val-share, as for training.
    palette
        File with the colours of the classes in masks, one class a line such as `building 255 0 0`, as for training.
    label_field
        Property that names the class of an area, where masks are GeoJSON, GeoPackage or Shapefile, as for training.
    class_choice
        Which classes are counted, and written by --prepare.
    prepare
        Folder to write masks and images to in the ordinary layout: images/train, masks/train, ..., classes.txt. Masks
        are PNG, those of georeferenced images GeoTIFF.
    allow_outside
        Read images outside of the folder where its annotations name them.
    json
        Print one JSON object instead of text.
    """
    from cyclemlp.data.folders import outside_allowed
    from cyclemlp.data.inspect import inspect_dataset
    from cyclemlp.data.palettes import read_palette
    from cyclemlp.data.prepared import check_prepared
    from cyclemlp.data.problems import DataRequest

    _check_options(sheet, sheet_images)
    if prepare is not None:
        check_prepared(prepare, directory)
    colours = None if palette is None else read_palette(palette)
    how = validation.with_seed(seed)
    request = DataRequest(hold_out=how, palette=colours, label_field=label_field, choice=class_choice)
    with outside_allowed(allow_outside):
        report = inspect_dataset(directory, request)
        prepared = prepare if prepare is not None and _prepare(report, prepare) else None
    written = sheet if sheet is not None and _write_sheet(report, sheet, sheet_images) else None
    files = {name: str(path) for name, path in (("sheet", written), ("prepared", prepared)) if path}
    sys.stdout.write((dumps(report.to_dict() | files) if json else _as_text(report, files)) + "\n")
    if report.problems:
        count = len(report.problems)
        listed = f"{count} problems, listed" if count > 1 else "1 problem, listed"
        raise DataError(f"{directory} has {listed} on standard output with what to do about each")


def _check_options(sheet: Path | None, images: int) -> None:
    if sheet is not None and (sheet.suffix.lower() not in SHEET_SUFFIXES or sheet.is_dir()):
        raise ConfigError(
            f"--sheet {sheet} is not an image file: give a name that ends in {' or '.join(SHEET_SUFFIXES)}"
        )
    if not 1 <= images <= MAX_SHEET_IMAGES:
        raise ConfigError(f"--sheet-images {images} is not allowed: give 1 to {MAX_SHEET_IMAGES}")


def _write_sheet(report: "DatasetReport", path: Path, images: int) -> bool:
    """Whether there was something to draw."""
    from cyclemlp.data.contact_sheet import contact_sheet
    from cyclemlp.files import atomic_write

    drawn = contact_sheet(report.dataset, images)
    if drawn is not None:
        with atomic_write(path) as part:
            drawn.save(part)
    return drawn is not None


def _prepare(report: "DatasetReport", out: Path) -> bool:
    """Whether there was something to write: masks without problems."""
    from cyclemlp.data.masks import MaskDataset
    from cyclemlp.data.prepared import write_prepared

    if not isinstance(report.dataset, MaskDataset):
        raise DataError(f"--prepare is for masks, and {report.dataset.root} has other labels: leave it out")
    if not report.problems:
        write_prepared(report.dataset, out)
    return not report.problems


def _as_text(report: "DatasetReport", files: Mapping[str, str]) -> str:
    lines = [f"{report.dataset.root}: format {report.format}, {len(report.dataset.classes)} classes"]
    lines += [f"{what}: {how}" for what, how in report.read_as.items()]
    for name, split in report.splits.items():
        empty = f", {split.images_without_objects:,} images without objects" if split.images_without_objects else ""
        lines += ["", f"{name}: {split.images:,} images, {split.pixels:,} pixels{empty}", *_class_lines(split)]
    if report.notes:
        lines += ["", "notes:", *(f"  {note}" for note in report.notes)]
    lines += ["", "problems:" if report.problems else "no problems found"]
    lines += [f"  {problem}" for problem in report.problems]
    titles = {"sheet": "contact sheet", "prepared": "prepared"}
    lines += [line for name, path in files.items() for line in ("", f"{titles[name]}: {path}")]
    return "\n".join(lines)


def _class_lines(split: "SplitReport") -> list[str]:
    rows = split.counts()
    total = sum(count for _, count in rows) or 1
    width = max((len(name) for name, _ in rows), default=0)
    return [f"  {name:<{width}}  {count:>15,}  {count / total:>8.3%}" for name, count in rows]
