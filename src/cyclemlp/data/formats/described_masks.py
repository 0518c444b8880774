"""Images and masks in the folders that a `data.yaml` names, with the names and, optionally, the colours of classes.

    path: .                      # optional
    train: images/train          # folders of images
    val: images/val
    masks: masks                 # the same places below another folder, or train_masks, val_masks, test_masks
    names: {0: ground, 1: water}
    colors: [[0, 255, 0], [0, 0, 255]]    # optional: for masks in colours

A file without a key for masks describes boxes (`cyclemlp.data.formats.yolo`), whose numbers have no background.
"""

from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from cyclemlp.data.folders import exists, may_read
from cyclemlp.data.formats.class_lists import ClassList, check_number, class_list
from cyclemlp.data.formats.layout import YAML_NAMES, described_names
from cyclemlp.data.formats.mask_pairs import SplitFolders
from cyclemlp.data.formats.masks import no_validation, read_masks
from cyclemlp.data.formats.registry import DatasetFormat, register
from cyclemlp.data.masks import MaskDataset, count_classes
from cyclemlp.data.palettes import parse_palette
from cyclemlp.data.problems import SPLITS, FileError, Findings
from cyclemlp.documents import DocumentError, read_yaml, shown

_FOR_ALL = ("masks", "masks_dir", "mask_dir", "mask")
_COLOURS = ("colors", "colours", "palette")
_LAYOUT = "data.yaml with masks (train, val, masks, names)"


class _Description(NamedTuple):
    """The content of data.yaml."""

    path: Path
    content: dict[str, Any]


def is_described(root: Path) -> bool:
    """Whether `root` has such a file."""
    return _description(root) is not None


def read_described(root: Path, findings: Findings) -> MaskDataset:
    """The data set that data.yaml describes."""
    description = _description(root)
    assert description is not None  # it was recognised
    folders = {}
    for split in SPLITS:
        found = _folders(description, root, findings.of(split))
        if found is not None:
            folders[split] = found
    if "val" not in folders and findings.request.hold_out is None and findings.request.split is None:
        no_validation(root, findings)
    if "train" not in folders and findings.request.split is None:
        findings.add(description.path, "names no train images", "add a line train: FOLDER")
    return read_masks(root, folders, _all_classes(description, root, findings), findings)


def _all_classes(description: _Description, root: Path, findings: Findings) -> ClassList:
    """Those of data.yaml, or of --palette and of classes.txt, which have to be the same."""
    listed = class_list(root, findings)
    own = findings.attempt(lambda _: _classes(description), description.path)
    if own is None or (findings.request.palette is not None and listed.palette == findings.request.palette):
        return listed
    if listed.names and listed.names != own.names:
        findings.add(description.path, "names other classes than the list of classes next to it", "make them equal")
    return listed if listed.palette is not None else own


def _description(root: Path) -> _Description | None:
    for path in (root / name for name in YAML_NAMES):
        if not path.is_file():
            continue
        try:
            content = read_yaml(path)
        except DocumentError:
            return None  # named by the format of boxes
        if isinstance(content, dict) and _has_masks(content) and any(_given(content, split) for split in SPLITS):
            return _Description(path, content)
    return None


def _has_masks(content: dict[str, Any]) -> bool:
    keys = {*_FOR_ALL, *(f"{split}_{kind}" for split in (*SPLITS, "valid") for kind in ("masks", "mask"))}
    return not keys.isdisjoint(content)


def _given(content: dict[str, Any], split: str) -> Any:
    return content.get("val", content.get("valid")) if split == "val" else content.get(split)


def _folders(description: _Description, root: Path, findings: Findings) -> SplitFolders | None:
    """The folders of a split; None where the file has none, or one that is missing, which is a problem."""
    path, content = description
    images = _given(content, findings.split)
    if not images:
        return None
    masks = _masks_of(content, findings.split, str(images))
    places = []
    for name, what in ((images, "images"), (masks, "masks")):
        if not isinstance(name, str):
            findings.add(path, f"has {shown(name)} for the {what} of {findings.split}", "write the name of one folder")
            return None
        place = _place(name, description, root, findings)
        if place is None:
            return None
        places.append(place)
    return places[0], places[1]


def _masks_of(content: dict[str, Any], split: str, images: str) -> Any:
    """The folder of the masks, by a key of its own or by the place of the images below another folder."""
    names = (split, "valid") if split == "val" else (split,)
    own = next((content[key] for name in names for key in (f"{name}_masks", f"{name}_mask") if key in content), None)
    if own is not None:
        return own
    given = next((content[key] for key in _FOR_ALL if key in content), None)
    if isinstance(given, dict):
        return next((given[name] for name in names if name in given), None)
    if not isinstance(given, str):
        return given
    parts = PurePosixPath(images).parts
    if "images" in parts:
        place = parts.index("images")
        return PurePosixPath(*parts[:place], given, *parts[place + 1 :]).as_posix()
    return PurePosixPath(given, *parts[-1:]).as_posix()


def _place(name: str, description: _Description, root: Path, findings: Findings) -> Path | None:
    """A folder below the one that `path` names or, since that is often one of another machine, below `root` itself."""
    base = str(description.content.get("path") or "")
    places = [root / base / name, root / name]
    found = next((each for each in places if may_read(each, root) and exists(each) and each.is_dir()), None)
    if found is not None:
        return found
    outside = next((each for each in places if not may_read(each, root) and exists(each)), None)
    if outside is not None:
        findings.inside(outside, root, name if ".." in name else str(outside), description.path)
    else:
        what = f"names the folder {shown(name)} for {findings.split}, which is missing"
        findings.add(description.path, what, "correct it; paths begin at its own folder")
    return None


def _classes(description: _Description) -> ClassList | None:
    """The classes, if it names any. Raises FileError."""
    path, content = description
    if "names" not in content:
        return None
    names = described_names(path, content)
    colours = next((content[key] for key in _COLOURS if key in content), None)
    if colours is None:
        return ClassList(check_number(path, names))
    values = [colours.get(name) for name in names] if isinstance(colours, dict) else colours
    if not isinstance(values, list) or len(values) != len(names):
        raise FileError(path, f"has {len(names)} names, but other colours", "write one colour for each name, in order")
    palette = parse_palette(path, [f"{name} {_colour(value)}" for name, value in zip(names, values, strict=True)])
    if palette is None:
        raise FileError(path, "has colours that are none", "write each as [red, green, blue] or '#rrggbb'")
    return ClassList(palette.classes, palette)


def _colour(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


register(
    DatasetFormat(
        "masks",
        MaskDataset,
        _LAYOUT,
        is_described,
        read_described,
        count_classes,
        "the folders that data.yaml names",
        explicit=True,
    )
)
