"""The images and videos that the inputs of a prediction stand for, and where their results go."""

import glob
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cyclemlp.data.folders import entries_of, is_system
from cyclemlp.data.images import IMAGE_SUFFIXES
from cyclemlp.data.scenes import SCENE_SUFFIXES, is_scene
from cyclemlp.data.videos import VIDEO_SUFFIXES
from cyclemlp.errors import ConfigError, DataError

_SUFFIXES = sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES)
_LOG = logging.getLogger(__name__)


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


def find_inputs(inputs: list[Path]) -> list[Path]:
    """The images and videos that files, folders and patterns stand for, each once, in the order given.

    Raises DataError where an input does not exist, a pattern fits nothing, or a folder has none.
    """
    found: dict[Path, Path] = {}
    for given in inputs:
        for path in _expanded(given):
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _expanded(given: Path) -> list[Path]:
    if given.is_dir():
        files = _usable(entries_of(given))
        if not files:
            raise DataError(f"{given} has no images or videos directly in it: looked for {', '.join(_SUFFIXES)}")
        _note_unused(given, files)
        return files
    if given.exists():
        return [given]
    if not glob.has_magic(str(given)):
        raise DataError(f"{given} does not exist: give an image, a video, a folder of them, or a pattern")
    # Path.glob takes no absolute pattern.
    files = _usable(Path(name) for name in glob.glob(str(given), recursive=True))  # noqa: PTH207
    if not files:
        raise DataError(f"{given} fits no image or video: correct the pattern")
    return files


def _usable(paths: Iterable[Path]) -> list[Path]:
    """Those with the names of images and videos, sorted, without hidden files."""
    return sorted(p for p in paths if p.suffix.lower() in _SUFFIXES and not p.name.startswith(".") and p.is_file())


def _note_unused(folder: Path, used: list[Path]) -> None:
    """Log how many entries of a folder are not predicted, by reason."""
    left = sorted(path for path in set(entries_of(folder)) - set(used) if not is_system(path.name))
    counted = [
        f"{len(paths)} {reason} ({'such as ' if paths[1:] else ''}{paths[0].name})"
        for reason, paths in (
            ("with other suffixes", [p for p in left if p.is_file() and p.suffix.lower() not in _SUFFIXES]),
            ("with hidden names", [p for p in left if p.is_file() and p.suffix.lower() in _SUFFIXES]),
            ("by links that lead nowhere", [p for p in left if p.is_symlink() and not p.exists()]),
            ("that are folders", [p for p in left if p.is_dir() and not p.name.startswith(".")]),
        )
        if paths
    ]
    if counted:
        hint = f"; folders are read where they are named, or by '{folder}/**/*'" if "folders" in counted[-1] else ""
        _LOG.warning("note: not used in %s: %s%s", folder, ", ".join(counted), hint)


def plan(
    sources: list[Path],
    out: Path,
    of_images: Mapping[str, str],
    of_videos: Mapping[str, str],
    of_scenes: Callable[[], Mapping[str, str]] | None = None,
) -> list[Job]:
    """Where everything will be written, decided before anything is.

    `of_images` are the suffixes of the files of an image by their kind, `of_videos` those of a video, and `of_scenes`
    returns those of a scene, where scenes are no images. Inputs of equal name get numbered names. Raises ConfigError
    where a file would replace one of the inputs.
    """
    given = {_identity(source) for source in sources}
    stems = {source.stem.casefold() for source in sources}
    taken: set[str] = set()
    numbers: dict[str, int] = {}
    jobs = []
    for source in sources:
        name = _free_name(source.stem, taken, stems, numbers)
        taken.add(name.casefold())
        scene = of_scenes is not None and source.suffix.lower() in SCENE_SUFFIXES and is_scene(source)
        own = of_videos if source.suffix.lower() in VIDEO_SUFFIXES else of_images
        own = of_scenes() if scene and of_scenes is not None else own
        jobs.append(Job(source, {kind: out / f"{name}{suffix}" for kind, suffix in own.items()}, scene))
    for path in (path for job in jobs for path in job.files.values()):
        if _identity(path) in given:
            raise ConfigError(f"--out {out}: {path.name} would replace an input; choose another folder")
    return jobs


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
