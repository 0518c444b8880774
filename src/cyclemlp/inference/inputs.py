"""The images and videos that the inputs of a prediction stand for, and where their results go."""

import glob
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cyclemlp.data.georeference import georeference
from cyclemlp.data.image_errors import ImageError
from cyclemlp.data.images import IMAGE_SUFFIXES
from cyclemlp.data.problems import listed
from cyclemlp.data.scenes import is_scene
from cyclemlp.data.videos import VIDEO_SUFFIXES
from cyclemlp.data.windows import SCENE_SUFFIXES
from cyclemlp.errors import ConfigError, DataError
from cyclemlp.inference.input_folders import read_folder

_logger = logging.getLogger(__name__)
_SUFFIXES = sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES)


@dataclass(frozen=True)
class Job:
    """An image or a video and the files written for it."""

    source: Path
    files: Mapping[str, Path]
    """Kind of file, such as `mask`, to its place."""
    is_scene: bool = False
    """Whether it is read in windows."""

    @property
    def is_video(self) -> bool:
        """Whether it is a video, by its name."""
        return self.source.suffix.lower() in VIDEO_SUFFIXES


def find_inputs(inputs: list[Path], *, recursive: bool = False, out: Path | None = None) -> dict[Path, Path]:
    """The images and videos that files, folders and patterns stand for, each once, in the order given.

    Each comes with the folder below that of the results in which its own go: with `recursive`, which takes folders with
    all that are in them but `out`, the one in which it lies below the folder given. Raises DataError where an input
    does not exist, a pattern fits nothing, or a folder has none, ConfigError for `recursive` without a folder.
    """
    if recursive and not any(given.is_dir() for given in inputs):
        raise ConfigError("--recursive is for folders, and no input is one: leave it out")
    found: dict[Path, tuple[Path, Path]] = {}
    repeated = []
    for given in inputs:
        for path, folder in _expanded(given, out, recursive=recursive):
            if found.setdefault(path.resolve(), (path, folder)) != (path, folder):
                repeated.append(path)
    if repeated:
        _logger.info("note: each file is predicted once: %d are given again (%s)", len(repeated), listed(repeated, 1))
    return dict(found.values())


def _expanded(given: Path, out: Path | None, *, recursive: bool) -> list[tuple[Path, Path]]:
    if given.is_dir():
        paths = read_folder(given, _SUFFIXES, recursive=recursive, out=out)
        return [(path, path.parent.relative_to(given)) for path in paths]
    if given.exists():
        return [(given, Path())]
    if not glob.has_magic(str(given)):
        raise DataError(f"{given} does not exist: give an image, a video, a folder of them, or a pattern")
    # Path.glob takes no absolute pattern.
    files = _usable(Path(name) for name in glob.glob(str(given), recursive=True))  # noqa: PTH207
    if not files:
        raise DataError(f"{given} fits no image or video: correct the pattern")
    return [(path, Path()) for path in files]


def _usable(paths: Iterable[Path]) -> list[Path]:
    """Those with the names of images and videos, sorted, without hidden files."""
    return sorted(p for p in paths if p.suffix.lower() in _SUFFIXES and not p.name.startswith(".") and p.is_file())


def plan(
    sources: Mapping[Path, Path] | Sequence[Path],
    out: Path,
    of_images: Mapping[str, str],
    of_videos: Mapping[str, str],
    of_scenes: Callable[[], Mapping[str, str]] | None = None,
) -> list[Job]:
    """Where everything will be written, decided before anything is: that of each source in its folder below `out`,
    where sources have folders.

    `of_images` are the suffixes of the files of an image by their kind, `of_videos` those of a video, and `of_scenes`
    returns those of a scene, where scenes are no images. Inputs of equal name in one folder get numbered names. Raises
    ConfigError where a file would replace one of the inputs.
    """
    given = {_identity(source) for source in sources}
    folders = sources if isinstance(sources, Mapping) else dict.fromkeys(sources, Path())
    stems = {str(folder / source.stem).casefold() for source, folder in folders.items()}
    taken: set[str] = set()
    numbers: dict[str, int] = {}
    jobs = []
    for source, folder in folders.items():
        name = _free_name(str(folder / source.stem), taken, stems, numbers)
        taken.add(name.casefold())
        scene = of_scenes is not None and source.suffix.lower() in SCENE_SUFFIXES and is_scene(source)
        own = of_videos if source.suffix.lower() in VIDEO_SUFFIXES else of_images
        own = of_scenes() if scene and of_scenes is not None else own
        jobs.append(Job(source, {kind: out / f"{name}{suffix}" for kind, suffix in own.items()}, scene))
    if of_scenes is not None:
        _note_places([job.source for job in jobs if not job.is_scene])
    for path in (path for job in jobs for path in job.files.values()):
        if _identity(path) in given:
            raise ConfigError(f"--out {out}: {path.name} would replace an input; choose another folder")
    return jobs


def _note_places(sources: Sequence[Path]) -> None:
    """Say that results of these have no place on the Earth, although the files have one."""
    lost = [os.fsencode(path).decode(errors="backslashreplace") for path in sources if _has_place(path)]
    if lost:
        why = "scenes are upright, grey or RGB, of one page, with a name in UTF-8, and read by rasterio (extra geo)"
        what = "note: results of %d georeferenced file%s have no place on the map (%s): %s"
        _logger.warning(what, len(lost), "s" * (len(lost) > 1), listed(lost, 1), why)


def _has_place(path: Path) -> bool:
    try:
        return georeference(path) is not None
    except ImageError:
        return False  # reading the image says what is wrong with it


def _identity(path: Path) -> str:
    """Equal for paths of one file, also where the file system ignores case."""
    return str(path.resolve()).casefold()


def _free_name(stem: str, taken: set[str], stems: set[str], numbers: dict[str, int]) -> str:
    """`stem`, or `stem-2`, `stem-3`, ... where it is taken; never a name that another input has by itself.

    `numbers` are the last ones given: looking from 2 on each time would take hours for a hundred thousand.
    """
    if stem.casefold() not in taken:
        return stem
    number = numbers.get(stem.casefold(), 1) + 1
    while (name := f"{stem}-{number}".casefold()) in taken or name in stems:
        number += 1
    numbers[stem.casefold()] = number
    return f"{stem}-{number}"
