"""The classes of areas on a map: those of the property that names them, over all splits of a data set."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cyclemlp.data.formats.class_lists import ClassList
from cyclemlp.data.masks import MaskDataset, MaskSplit
from cyclemlp.data.problems import FileError, Findings
from cyclemlp.data.vector_labels import BACKGROUND, VectorRule, is_vector, label_field, names_in


def mask_dataset(root: Path, classes: ClassList, splits: Mapping[str, MaskSplit], findings: Findings) -> MaskDataset:
    """The data set of these splits, whose masks are images or areas, all of one kind."""
    masks = list(dict.fromkeys(path for split in splits.values() for path in split.masks))
    areas = [path for path in masks if is_vector(path)]
    if not areas:
        if findings.request.label_field is not None and findings.request.split is None:
            findings.add(root, "has no areas on a map, which --label-field is for", "leave it out")
        return MaskDataset(root, classes.names, dict(splits), named=bool(classes.names))
    if len(areas) < len(masks):
        other = next(path for path in masks if not is_vector(path))
        findings.add(areas[0], f"holds areas, but {other} is an image", "give all labels in one of the two ways")
        return MaskDataset(root, classes.names, {})
    try:
        rule = _rule(root, classes, areas, findings)
    except FileError as error:
        findings.add_error(error)
        return MaskDataset(root, classes.names, {})
    drawn = {name: replace(split, vectors=rule, palette=None) for name, split in splits.items()}
    return MaskDataset(root, rule.classes, drawn)


def _rule(root: Path, classes: ClassList, areas: list[Path], findings: Findings) -> VectorRule:
    """Raises FileError."""
    field = label_field(areas, findings.request.label_field)
    given = classes.names or findings.request.classes
    if not given:
        return VectorRule(field, names_in(areas, field))
    if BACKGROUND not in given:
        what = f"names no class {BACKGROUND!r}, which pixels outside of all objects have"
        raise FileError(root / "classes.txt", what, "add it, at the place of its number")
    return VectorRule(field, given)
