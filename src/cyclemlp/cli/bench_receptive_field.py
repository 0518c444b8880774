"""`cyclemlp bench receptive-field`: how far networks see."""

import sys
from json import dumps
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from cyclemlp.cli.bench_output import aligned, check_out, command_line


def receptive_field(
    names: Annotated[tuple[str, ...], Parameter(negative=())] = (
        "cyclemlp_b1",
        "swin_tiny_patch4_window7_224",
        "resnet50",
    ),
    /,
    *,
    data: Path | None = None,
    images: int = 8,
    size: int = 224,
    picture: Path | None = None,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Draw how strongly the centre of the last map depends on each pixel, and on how much of the image's area.

    Parameters
    ----------
    names
        timm names (with random weights) or run folders of classifiers.
    data
        A folder of images; by default the sample of the Earth.
    images
        So many of them, evenly spread.
    size
        Edge of the square images, in pixels.
    picture
        Where the picture goes; by default beside `--out`, as .png.
    out
        Also write the JSON to this file, such as results/receptive-field.json.
    json
        Print one JSON object instead of a table.
    """
    from benchmarks.heat_maps import draw_heat_maps
    from benchmarks.receptive_field import record_of, see
    from cyclemlp.errors import ConfigError
    from cyclemlp.files import write_json

    check_out(out, "receptive-field.json")
    if images < 1 or size < 1:
        raise ConfigError(f"--images {images} --size {size} is not allowed: both are 1 or more")
    paths = _images(data, images)
    seen = [see(name, paths, size) for name in names]
    source = "the Blue Marble sample" if data is None else data.name
    record = record_of(seen, len(paths), size, source, command_line())
    picture = picture or (out.with_suffix(".png") if out else None)
    if picture is not None:
        draw_heat_maps(seen, picture)
    if out is not None:
        write_json(out, record)
    sys.stdout.write(dumps(record) + "\n" if json else _table(record))


def _images(data: Path | None, count: int) -> list[Path]:
    from cyclemlp.data.images import list_images
    from cyclemlp.data.samples.blue_marble import prepare_blue_marble
    from cyclemlp.data.sampling import evenly_spaced
    from cyclemlp.errors import DataError

    folder = prepare_blue_marble() / "images" / "val" if data is None else data
    found = list_images(folder) if folder.is_dir() else []
    if not found:
        raise DataError(f"--data {folder} has no images: give a folder that has some directly in it")
    return evenly_spaced(found, count)


def _table(record: dict[str, Any]) -> str:
    rows: list[tuple[str, ...]] = [("model", "weights", "area of 50% of the energy", "area of 95%")]
    for each in record["models"]:
        weights = "random" if each["random_weights"] else "trained"
        areas = (f"{each[f'area_of_{share}_energy']:.1%}" for share in ("50%", "95%"))
        rows.append((each["model"], weights, *areas))
    return "\n".join([f"{record['images']} images of {record['source']}", *aligned(rows)]) + "\n"
