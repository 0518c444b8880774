"""Networks that ONNX Runtime runs, on the CPU. Nothing here imports torch."""

from pathlib import Path

from cyclemlp.data.resampling import FloatArray
from cyclemlp.errors import CheckpointError, MissingExtraError
from cyclemlp.inference.runtimes.network import INPUT_NAME, Facts
from cyclemlp.tasks.card import ModelCard

try:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as states
except ModuleNotFoundError as error:
    raise MissingExtraError("onnxruntime", "export") from error

# ONNX Runtime's errors have no base class of their own.
_UNUSABLE = (
    states.Fail,
    states.InvalidArgument,
    states.InvalidGraph,
    states.InvalidProtobuf,
    states.NoModel,
    states.NotImplemented,
    states.RuntimeException,
)
_ERRORS_ONLY = 3


class OnnxNetwork:
    """An `.onnx` file written by `cyclemlp export`, run in `threads` threads, by default in one per physical core.

    Raises CheckpointError where it is none.
    """

    def __init__(self, path: Path, threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = _ERRORS_ONLY
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except _UNUSABLE as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{path} is not a usable ONNX file ({reason}): export it again") from error
        self.facts = Facts.from_entries(self._session.get_modelmeta().custom_metadata_map, path)
        self.size_rule = self.facts.size_rule

    def __call__(self, images: FloatArray) -> tuple[FloatArray, ...]:
        """Outputs in the order of the file's facts."""
        return tuple(self._session.run(list(self.facts.outputs), {INPUT_NAME: images}))


def load_onnx(path: Path, threads: int = 0) -> tuple[OnnxNetwork, ModelCard]:
    """The network and card of an `.onnx` file. Raises CheckpointError."""
    network = OnnxNetwork(path, threads)
    return network, network.facts.card
