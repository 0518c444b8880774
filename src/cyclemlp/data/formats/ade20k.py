"""ADE20K's archive (https://sceneparsing.csail.mit.edu): masks in `annotations`, 0 for ignored pixels.

The class names are the last column of `objectInfo150.txt`, unless there is a `classes.txt`.
"""

from pathlib import Path
from types import MappingProxyType

from cyclemlp.data.formats.masks import MaskLayout, is_mask_dataset, named_classes, read_masks
from cyclemlp.data.formats.registry import DatasetFormat, register
from cyclemlp.data.masks import IGNORE_INDEX, MaskDataset, count_classes
from cyclemlp.data.problems import FileError, Findings

NAMES = "objectInfo150.txt"
_LAYOUT = MaskLayout("annotations", MappingProxyType({"train": "training", "val": "validation"}), zero_ignored=True)


def is_ade20k(root: Path) -> bool:
    """Whether `root` has ADE20K's folders and is not a data set with plain masks."""
    return (root / "images").is_dir() and (root / "annotations" / "training").is_dir() and not is_mask_dataset(root)


def read_ade20k(root: Path, findings: Findings) -> MaskDataset:
    """The data set in `root`."""
    names = named_classes(root, findings) or _listed_classes(root / NAMES, findings)
    return read_masks(root, _LAYOUT, names, findings)


def _listed_classes(path: Path, findings: Findings) -> tuple[str, ...]:
    """The names with all synonyms; none without the file or if it is unusable."""
    if not path.is_file():
        return ()
    lines = path.read_text(encoding="utf-8-sig", errors="replace").strip().splitlines()
    names = tuple(line.split("\t")[-1].strip() for line in lines[1:])
    if len(set(names)) != len(names) or "" in names or not 2 <= len(names) < IGNORE_INDEX:
        fix = "take the file of the archive, or write classes.txt"
        findings.add_error(FileError(path, "does not name each class once", fix), "")
        return ()
    return names


register(DatasetFormat("masks", MaskDataset, "ADE20K's archive", is_ade20k, read_ade20k, count_classes))
