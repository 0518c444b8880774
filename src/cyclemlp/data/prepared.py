"""A data set of masks written in the ordinary layout: images/SPLIT, masks/SPLIT as PNG of class numbers, classes.txt.

Images are copied as they are. Masks hold what training sees: the number of a class, or 255 for ignored pixels. Those of
images that lie somewhere on the Earth are GeoTIFFs of the same place; those of images that are read in windows are TIFF
as well, which can be, too.
"""

import os
import shutil
from pathlib import Path

from PIL import Image

from cyclemlp.data.folders import pair_key
from cyclemlp.data.formats.layout import CLASSES_NAME
from cyclemlp.data.masks import IGNORE_INDEX, MaskDataset, MaskSplit
from cyclemlp.data.scenes import is_scene, stored_scene, write_geotiff
from cyclemlp.data.windows import SCENE_SUFFIXES
from cyclemlp.errors import ConfigError
from cyclemlp.files import atomic_folder, check_writable
from cyclemlp.progress import progress_bar


def check_prepared(out: Path, root: Path) -> None:
    """Raise ConfigError where the folder is not empty, cannot be written, or lies in the data themselves."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--prepare {out} exists and is not empty: choose another folder")
    if out.resolve().is_relative_to(root.resolve()):
        raise ConfigError(f"--prepare {out} lies in the data, where it would be read as a part of them: choose another")
    check_writable(out, "--prepare")


def write_prepared(dataset: MaskDataset, out: Path) -> None:
    """Write a sound data set, whole or not at all. Raises DataError for a file that cannot be read."""
    with atomic_folder(out) as part:
        for name, split in dataset.splits.items():
            places = _places(split)
            for index in progress_bar(range(len(places)), what=f"writing {name}", unit="images"):
                image, mask = part / "images" / name / places[index], part / "masks" / name / places[index]
                for path in (image, mask):
                    path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(split.images[index], image)
                _write_mask(split, index, mask)
        lines = [" ".join(name.split()) for name in dataset.classes]
        (part / CLASSES_NAME).write_text("\n".join([*lines, ""]), encoding="utf-8")


def _write_mask(split: MaskSplit, index: int, mask: Path) -> None:
    """As PNG; as TIFF of an image that is a scene or is read in windows."""
    image = split.images[index]
    scene_like = image.suffix.lower() in SCENE_SUFFIXES and is_scene(image)
    if not scene_like and split.size_in_windows(index) is None:
        Image.fromarray(split.target(index)).save(mask.with_name(f"{mask.stem}.png"))
        return
    with stored_scene(image) as scene:
        strips = (target[None] for _, target in split.targets(index))
        write_geotiff(mask.with_name(f"{mask.stem}.tif"), scene.place, strips, 1, IGNORE_INDEX)


def _places(split: MaskSplit) -> list[Path]:
    """Where each image goes: its place below the folder that all have in common, and a name of its own."""
    if not split.images:
        return []
    common = os.path.commonpath([path.absolute().parent for path in split.images])
    taken: set[Path] = set()
    places = []
    for path in split.images:
        place = path.absolute().relative_to(common)
        number = 1
        while pair_key(place) in taken:
            number += 1
            place = place.with_name(f"{path.stem}-{number}{path.suffix}")
        taken.add(pair_key(place))
        places.append(place)
    return places
