"""What labels a data set has, as short digests: they say whether two data sets are the same, wherever they lie."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from cyclemlp.data.datasets import ClassifiedSplit
from cyclemlp.data.formats.registry import AnyDataset
from cyclemlp.data.masks import MaskSplit
from cyclemlp.data.objects import DetectionSplit, Record
from cyclemlp.data.outlines import Polygons
from cyclemlp.data.vector_labels import files_of

AnySplit = MaskSplit | DetectionSplit | ClassifiedSplit
BYTES = 16
_BYTES_AT_ONCE = 2**20


def labels_digest(dataset: AnyDataset, splits: Sequence[str]) -> str:
    """Of the names of the images in these splits and of their labels; of masks, the bytes of their files.

    Which classes are learnt matters; the folder of the data set and the times of its files do not.
    """
    digest = hashlib.blake2b(digest_size=BYTES)
    for name in splits:
        split = dataset.splits[name]
        digest.update(f"\0{name}\0{len(split.images)}".encode())
        if isinstance(split, MaskSplit) and (split.palette is not None or split.vectors is not None):
            texts = split.palette.texts() if split.palette is not None else [str(split.vectors)]
            digest.update("\0".join(texts).encode())
        if isinstance(split, MaskSplit) and split.part is not None:
            blocks = split.part.blocks
            digest.update(f"{blocks.edge} {blocks.margin} {sorted(blocks.held_out)}".encode())
        if isinstance(split, MaskSplit) and split.class_numbers is not None:
            digest.update(bytes(split.class_numbers))
        for path, label in zip(split.images, _labels(split), strict=True):
            digest.update(_name(path, dataset.root))
            digest.update(label)
    return digest.hexdigest()


def data_digest(dataset: AnyDataset, splits: Sequence[str]) -> str:
    """Of the labels as `labels_digest`, and of the sizes of the image files."""
    digest = hashlib.blake2b(labels_digest(dataset, splits).encode(), digest_size=BYTES)
    for name in splits:
        for path in dataset.splits[name].images:
            digest.update(f"{path.stat().st_size} ".encode())
    return digest.hexdigest()


def _labels(split: AnySplit) -> Iterable[bytes]:
    if isinstance(split, MaskSplit):
        return (_content(path) for path in split.masks)
    if isinstance(split, ClassifiedSplit):
        return (f"\0{label}\0".encode() for label in split.labels)
    return (_objects(record) for record in split.records)


def _content(mask: Path) -> bytes:
    digest = hashlib.blake2b(digest_size=BYTES)
    for path in files_of(mask):
        with path.open("rb") as file:
            while content := file.read(_BYTES_AT_ONCE):
                digest.update(content)
    return digest.digest()


def _objects(record: Record) -> bytes:
    digest = hashlib.blake2b(digest_size=BYTES)
    for array in (record.boxes_xyxy, record.labels, record.crowd):
        digest.update(array.tobytes())
    for outline in record.segmentations:
        if isinstance(outline, Polygons):
            digest.update(b"\0".join(ring.tobytes() for ring in outline.rings))
        elif outline is not None:
            digest.update(outline.counts)
        digest.update(b"\0")
    return digest.digest()


def _name(path: Path, root: Path) -> bytes:
    return os.fsencode(os.path.relpath(path, root))
