"""Networks that OpenVINO runs, on the CPU. Nothing here imports torch."""

from pathlib import Path

import numpy as np

from cyclemlp.data.resampling import FloatArray
from cyclemlp.errors import CheckpointError, MissingExtraError
from cyclemlp.inference.runtimes.network import INPUT_NAME, PREFIX, Facts
from cyclemlp.tasks.card import ModelCard

try:
    import openvino
except ModuleNotFoundError as error:
    raise MissingExtraError("openvino", "export") from error

# Without the hint OpenVINO computes in bfloat16 on processors that have it, and results would differ.
SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
FACTS_SECTION = PREFIX.rstrip(".")


class OpenVinoNetwork:
    """An `.xml` file written by `cyclemlp export`. Raises CheckpointError where it is none.

    `weights` is its second file, by default the `.bin` file of the same name. With `threads` 0 OpenVINO chooses their
    number.
    """

    def __init__(self, path: Path, weights: Path | None = None, threads: int = 0) -> None:
        weights = weights or path.with_suffix(".bin")
        _check_files(path, weights)
        core = openvino.Core()
        try:
            model = core.read_model(path, weights)
            self._compiled = core.compile_model(model, "CPU", {**SETTINGS, "INFERENCE_NUM_THREADS": threads})
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{path} is not a usable OpenVINO file ({reason}): export it again") from error
        self.facts = Facts.from_entries(_entries(model), path)
        self.size_rule = self.facts.size_rule

    def __call__(self, images: FloatArray) -> tuple[FloatArray, ...]:
        """Outputs in the order of the file's facts."""
        # A request of its own: results of the compiled model's default one are overwritten by the next call.
        outputs = self._compiled({INPUT_NAME: images})
        return tuple(np.array(outputs[name]) for name in self.facts.outputs)


def load_openvino(path: Path, threads: int = 0) -> tuple[OpenVinoNetwork, ModelCard]:
    """The network and card of an `.xml` file with its `.bin`. Raises CheckpointError."""
    network = OpenVinoNetwork(path, threads=threads)
    return network, network.facts.card


def _entries(model: openvino.Model) -> dict[str, str]:
    """The metadata of a model; its values come as strings only when each is asked for by its name."""
    if not model.has_rt_info([FACTS_SECTION]):
        return {}
    keys = model.get_rt_info([FACTS_SECTION]).astype(dict)
    return {PREFIX + key: model.get_rt_info([FACTS_SECTION, key]).astype(str) for key in keys}


def _check_files(path: Path, weights: Path) -> None:
    """Before OpenVINO sees them, which tries all formats it knows and writes what each of them thinks."""
    if not weights.is_file():
        raise CheckpointError(f"{path} lacks its weights {weights.name}: keep the two files together")
    with path.open("rb") as file:
        start = file.read(256)
    if b"<net" not in start:
        raise CheckpointError(f"{path} is not an OpenVINO file: give one written by `cyclemlp export`")
