"""Images and masks that a list pairs: a CSV with columns for image, mask and, optionally, split, or the same in YAML.

The list is in the folder of the data. `train.csv`, `val.csv` and `test.csv` are lists of one split each; a YAML file is
a list of mappings such as `{image: a.tif, mask: b.png, split: train}`, or such lists under train, val and test. Without
splits in the list the folders in the names say them, such as `images/train/a.png`; without these, `--val-share` does.
"""

import csv
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cyclemlp.data.folders import Folders, entries_of, slashed
from cyclemlp.data.formats.class_lists import class_list
from cyclemlp.data.formats.layout import SPLIT_OF, read_lines
from cyclemlp.data.formats.mask_pairs import headers_fit, is_mask_file
from cyclemlp.data.formats.masks import no_validation
from cyclemlp.data.formats.registry import DatasetFormat, register
from cyclemlp.data.formats.vector_classes import mask_dataset
from cyclemlp.data.masks import MaskDataset, MaskSplit, count_classes
from cyclemlp.data.problems import FileError, Findings, Problem, listed
from cyclemlp.data.unused_files import unused_files
from cyclemlp.data.vector_labels import is_vector
from cyclemlp.documents import DocumentError, read_yaml, shown

IMAGE_COLUMNS = ("image", "img", "image_path", "img_path", "image_file", "image_name", "filename", "file_name", "file")
MASK_COLUMNS = ("mask", "label", "mask_path", "label_path", "mask_file", "label_file", "mask_name", "gt", "target")
SPLIT_COLUMNS = ("split", "set", "subset", "partition", "phase")
"""Names of columns, in any case; a plural means the same. The first of these that a list has counts."""
_MAX_TITLES = 2**12
"""Characters of the first line of a table that are looked at."""
_LAYOUT = "a list of pairs (CSV or YAML with image, mask, split)"
_LOG = logging.getLogger(__name__)


class Row(NamedTuple):
    """A pair as a list has it."""

    image: str
    mask: str
    split: str
    """As the list has it; empty where it has none."""
    where: str
    """In words for a message: `line 3`."""


class PairList(NamedTuple):
    """A file that lists pairs."""

    path: Path
    rows: list[Row]


def is_pair_list(root: Path) -> bool:
    """Whether `root` has a list of images and masks."""
    return any(True for _ in _lists(root))


def read_pair_lists(root: Path, findings: Findings) -> MaskDataset:
    """The data set that the lists in `root` describe."""
    lists = list(_lists(root))
    of_splits = [each for each in lists if each.path.stem.casefold() in SPLIT_OF]
    if len(lists) > 1 and len(of_splits) < len(lists):
        names = listed([each.path.name for each in lists])
        findings.add(root, f"has several lists of pairs ({names})", "keep one, or call them train.csv and val.csv")
        return MaskDataset(root, (), {})
    rows = [(each.path, row) for each in lists for row in each.rows]
    splits = _split_names(rows, findings)
    if splits is None:
        return MaskDataset(root, (), {})
    pairs: dict[str, dict[Path, Path]] = {name: {} for name in splits}
    first: dict[Path, Row] = {}
    folders = Folders()
    for (path, row), split in zip(rows, splits, strict=True):
        if (pair := _resolved(root, path, row, folders, findings.of(split))) is None:
            continue
        if (before := first.setdefault(pair[0], row)) is not row:
            what = f"lists {row.image} in {before.where} and {row.where}"
            findings.add(path, what, "keep one: an image has one mask and is in one split")
        elif headers_fit(*pair, findings.of(split)):
            pairs[split][pair[0]] = pair[1]
    _check_required(root, pairs, findings)
    _note_shared_masks(pairs, findings)
    classes = class_list(root, findings)
    made = {name: MaskSplit(tuple(each), tuple(each.values()), palette=classes.palette) for name, each in pairs.items()}
    findings.notes += unused_files(root, (path for row in pairs.values() for pair in row.items() for path in pair))
    return mask_dataset(root, classes, made, findings)


def _check_required(root: Path, pairs: dict[str, dict[Path, Path]], findings: Findings) -> None:
    """Add the problem that a split is missing that has to exist."""
    required = findings.request.splits
    for split in (name for name in required if not pairs.get(name)):
        if split == "val" and findings.request.split is None:
            no_validation(root, findings)
        elif split not in pairs:
            others = listed(sorted(pairs))
            findings.of(split).add(root, f"lists no pairs of the {split} split, only {others}", "add some to its list")


def _note_shared_masks(pairs: dict[str, dict[Path, Path]], findings: Findings) -> None:
    """A note where several images have one mask of pixels: a row that was copied, and not changed to its end."""
    counts = Counter(mask for each in pairs.values() for mask in each.values() if not is_vector(mask))
    if shared := [mask for mask, count in counts.items() if count > 1]:
        further = f", as {len(shared) - 1} further masks are of several" if shared[1:] else ""
        what = f"is the mask of {counts[shared[0]]} images{further}"
        findings.notes.append(Problem(shared[0], "", what, "correct the list, unless these images show the same"))


def _lists(root: Path) -> Iterator[PairList]:
    for path in sorted(entries_of(root)):
        if path.name.startswith(".") or not path.is_file():
            continue
        rows = _of_csv(path) if path.suffix.lower() in (".csv", ".tsv") else _of_yaml(path)
        if rows:
            yield PairList(path, rows)


def _of_csv(path: Path) -> list[Row]:
    """The rows of a table; none where it is no list of pairs."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            first = file.readline(_MAX_TITLES)
        delimiter = max(",;\t", key=first.count)
        cells = next(csv.reader([first], delimiter=delimiter), [])
        titles = [cell.strip().casefold().replace(" ", "_") for cell in cells]
        places = [_column(titles, names) for names in (IMAGE_COLUMNS, MASK_COLUMNS, SPLIT_COLUMNS)]
        if places[0] is None or places[1] is None:
            return []
        table = list(csv.reader(read_lines(path), delimiter=delimiter))
    except (OSError, FileError, csv.Error):
        return []
    rows = []
    for number, cells in enumerate(table[1:], start=2):
        if any(cell.strip() for cell in cells):
            image, mask, split = (
                "" if place is None or place >= len(cells) else cells[place].strip() for place in places
            )
            rows.append(Row(image, mask, split, f"line {number}"))
    return rows if _is_paired(rows) else []


def _column(titles: Sequence[str], names: Sequence[str]) -> int | None:
    singular = [title.removesuffix("s") if title.removesuffix("s") in names else title for title in titles]
    return next((singular.index(name) for name in names if name in singular), None)


def _is_paired(rows: Sequence[Row]) -> bool:
    """Whether the masks of rows are files; a table with class names in place of them lists no pairs."""
    return any(is_mask_file(Path(row.mask)) for row in rows)


def _of_yaml(path: Path) -> list[Row]:
    """The rows of a YAML file; none where it is no list of pairs."""
    if path.suffix.lower() not in (".yaml", ".yml"):
        return []
    try:
        content = read_yaml(path)
    except DocumentError:
        return []
    lists: dict[str, Any] = {"": content.get("pairs") if isinstance(content, dict) else content}
    if isinstance(content, dict):
        lists |= {str(name): value for name, value in content.items() if str(name).casefold() in SPLIT_OF}
    rows = []
    for split, entries in lists.items():
        for number, entry in enumerate(entries if isinstance(entries, list) else [], start=1):
            rows.append(_yaml_row(entry if isinstance(entry, dict) else {}, split, number))
    return rows if _is_paired(rows) else []


def _yaml_row(entry: dict[Any, Any], split: str, number: int) -> Row:
    titles = [str(key).casefold() for key in entry]
    values = [str(value) for value in entry.values()]
    places = [_column(titles, names) for names in (IMAGE_COLUMNS, MASK_COLUMNS, SPLIT_COLUMNS)]
    image, mask, own = ("" if place is None else values[place] for place in places)
    return Row(image, mask, own or split, f"entry {number}{f' of {split}' if split else ''}")


def _split_names(rows: Sequence[tuple[Path, Row]], findings: Findings) -> list[str] | None:
    """The split of each row; None, and a problem, where a list does not say it."""
    by_list = [row.split or path.stem * (path.stem.casefold() in SPLIT_OF) for path, row in rows]
    listed_splits = any(by_list)
    if not listed_splits:
        by_list = [_split_in(row.image) for _, row in rows]
        if not any(by_list):
            return ["train"] * len(rows)
        _LOG.info("%s: the splits are those in the names of the images", rows[0][0])
    names = [SPLIT_OF.get(name.casefold(), "") for name in by_list]
    if "" in names:
        (path, row), given = rows[names.index("")], by_list[names.index("")]
        what = f"has the split {shown(given)} in {row.where}" if given else f"has no split in {row.where}, others have"
        what += "" if listed_splits else " by the folders of their images"
        findings.add(path, what, f"write train, val or test{'' if listed_splits else ' in a column split'}")
        return None
    return names


def _split_in(image: str) -> str:
    """The folder in a path that is named as a split is; empty without one."""
    return next((part for part in Path(slashed(image)).parts[:-1] if part.casefold() in SPLIT_OF), "")


def _resolved(root: Path, path: Path, row: Row, folders: Folders, findings: Findings) -> tuple[Path, Path] | None:
    """The two files of a pair; None, and a problem, where one is missing or no mask."""
    found = []
    for given, usual, what in ((row.image, "images", "image"), (row.mask, "masks", "mask")):
        name = slashed(given)
        if not name:
            findings.add(path, f"has no {what} in {row.where}", "name its file there, or remove the row")
            return None
        places = [root / name, root / usual / name]
        if not all(findings.inside(place, root, name, path) for place in places[:1]):
            return None
        file = next((each for each in map(folders.find, places) if each is not None), None)
        if file is None:
            fix = "correct it: names begin at the folder of the list"
            findings.add(path, f"names the {what} {shown(name)} in {row.where}, which is missing", fix)
            return None
        found.append(file)
    if not is_mask_file(found[1]):
        findings.add(found[1], "is a mask but not a PNG", "save it as PNG, which keeps the numbers")
        return None
    if found[0] == found[1]:
        findings.add(path, f"names {shown(row.image)} as both image and mask in {row.where}", "name the mask")
        return None
    return found[0], found[1]


register(
    DatasetFormat(
        "masks", MaskDataset, _LAYOUT, is_pair_list, read_pair_lists, count_classes, "a list of pairs", explicit=True
    )
)
