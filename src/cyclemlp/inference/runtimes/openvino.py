"""Networks that OpenVINO runs, on the CPU. Nothing here imports torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from cyclemlp.errors import CheckpointError, reason_of
from cyclemlp.heads.network import FloatArray
from cyclemlp.inference.runtimes.facts import INPUT_NAME, PREFIX, ExportedNetwork
from cyclemlp.inference.runtimes.registry import Runtime
from cyclemlp.tasks.card import ModelCard

if TYPE_CHECKING:
    import openvino

# Without the hint OpenVINO computes in bfloat16 on processors that have it, and results would differ.
SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
FACTS_SECTION = PREFIX.rstrip(".")


@cache
def core() -> "openvino.Core":
    """OpenVINO itself, one for the process, kept until it ends.

    Its CPU device installs a stack for signals while it lives. Two that end in the order they were made leave the
    process with the freed stack of the first, and the next signal that Python handles (Ctrl-C, the end of a child)
    kills it.
    """
    import openvino

    return openvino.Core()


class OpenVinoNetwork(ExportedNetwork):
    """An `.xml` file written by `cyclemlp export`, with its `.bin`. Raises CheckpointError where it is none."""

    def __init__(self, path: Path, threads: int = 0) -> None:
        _check_files(path)
        with _named_errors(path):
            model = core().read_model(path)
            self._compiled = core().compile_model(model, "CPU", {**SETTINGS, "INFERENCE_NUM_THREADS": threads})
            entries = _entries(model)
        super().__init__(path, entries)

    def __call__(self, images: FloatArray) -> tuple[FloatArray, ...]:
        """Outputs in the order of the file's facts."""
        with _named_errors(self._path):
            # A request of its own for each call: the compiled model's default one refuses a second thread.
            outputs = self._compiled.create_infer_request().infer({INPUT_NAME: images}, share_inputs=True)
            return tuple(outputs[name] for name in self.facts.outputs)


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """What OpenVINO raises in the block becomes a CheckpointError about `path`; KeyError names a missing output."""
    try:
        yield
    except (RuntimeError, UnicodeDecodeError, KeyError) as error:  # the second for names that are not UTF-8
        raise CheckpointError(f"{path} is not a usable OpenVINO file ({reason_of(error)}): export it again") from error


def load(path: Path, _device: str, threads: int) -> tuple[OpenVinoNetwork, ModelCard]:
    """The network and card of an `.xml` file with its `.bin`. Raises CheckpointError."""
    network = OpenVinoNetwork(path, threads)
    return network, network.facts.card


def _entries(model: "openvino.Model") -> dict[str, str]:
    """The metadata of a model; its values come as strings only when each is asked for by its name."""
    if not model.has_rt_info([FACTS_SECTION]):
        return {}
    keys = model.get_rt_info([FACTS_SECTION]).astype(dict)
    return {PREFIX + key: model.get_rt_info([FACTS_SECTION, key]).astype(str) for key in keys}


def _check_files(path: Path) -> None:
    """Before OpenVINO sees them: it tries every format it knows and writes what each of them has to say."""
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise CheckpointError(f"{path} lacks its weights {weights.name}: keep the two files together")
    with path.open("rb") as file:
        start = file.read(256)
    if b"<net" not in start:
        raise CheckpointError(f"{path} is not an OpenVINO file: give one written by `cyclemlp export`")


RUNTIME = Runtime((".xml",), load, package="openvino", extra="export")
