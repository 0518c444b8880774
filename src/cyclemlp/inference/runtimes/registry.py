"""Which runtime opens a file, by its suffix. To add one, put a module with a `RUNTIME` into this package."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cyclemlp.errors import CheckpointError, ConfigError, MissingExtraError
from cyclemlp.heads.network import Network
from cyclemlp.inference import runtimes
from cyclemlp.tasks.card import ModelCard

RUN_FOLDER = ""
"""The suffix that stands for a run folder or its weights: whatever is not an exported file."""


@dataclass(frozen=True)
class Runtime:
    """A library that runs networks."""

    suffixes: tuple[str, ...]
    """Of the files it opens, in lower case."""
    load: Callable[[Path, str, int], tuple[Network, ModelCard]]
    """Opens a file on a device, with a number of threads or 0 for the library's choice.

    Raises CheckpointError where it cannot, ModuleNotFoundError without the library.
    """
    package: str
    """The library, by the name it is installed under."""
    extra: str | None = None
    """The extra of cyclemlp that installs it, None where cyclemlp itself does."""
    cpu_only: bool = True


def register(runtime: Runtime) -> None:
    """Let `runtime` open the files with its suffixes from now on."""
    _by_suffix().update(dict.fromkeys(runtime.suffixes, runtime))


def is_exported(path: Path) -> bool:
    """Whether the name is that of a file which a runtime opens, in place of a run folder."""
    return path.suffix.lower() in _by_suffix() and path.suffix != RUN_FOLDER and not path.is_dir()


def load_network(path: Path, device: str = "auto", threads: int = 0) -> tuple[Network, ModelCard]:
    """The network and card of a run folder, its weights, or an exported file.

    `threads` is for ONNX Runtime and OpenVINO, which choose it themselves where it is 0; torch has one number for the
    whole process.

    Raises CheckpointError where `path` is no such thing, or needs torch, which is not installed, ConfigError where the
    device cannot be used here, or not by this kind of file, MissingExtraError where the file's library is missing.
    """
    suffix = RUN_FOLDER if path.is_dir() else path.suffix.lower()
    runtime = _by_suffix().get(suffix, _by_suffix()[RUN_FOLDER])
    if suffix != RUN_FOLDER and suffix in _by_suffix() and not path.is_file():
        raise CheckpointError(f"{path} does not exist: give a file written by `cyclemlp export`")
    if runtime.cpu_only and device not in ("auto", "cpu"):
        raise ConfigError(f"device {device!r}: {suffix} files run on cpu here; for another device use the checkpoint")
    try:
        return runtime.load(path, device, threads)
    except ModuleNotFoundError as error:
        if runtime.extra is not None:
            raise MissingExtraError(runtime.package, runtime.extra) from error
        raise CheckpointError(
            f"{path} needs {error.name}, which is not installed: pip install torch torchvision timm, or use a file"
            " that `cyclemlp export` wrote with --format onnx or openvino"
        ) from error


@cache
def _by_suffix() -> dict[str, Runtime]:
    names = [f"{runtimes.__name__}.{each.name}" for each in pkgutil.iter_modules(runtimes.__path__)]
    found = [getattr(importlib.import_module(name), "RUNTIME", None) for name in names]
    return {suffix: runtime for runtime in found if runtime is not None for suffix in runtime.suffixes}
