"""Networks that ONNX Runtime runs, on the CPU. Nothing here imports torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cyclemlp.errors import CheckpointError, reason_of
from cyclemlp.heads.network import FloatArray
from cyclemlp.inference.runtimes.facts import INPUT_NAME, ExportedNetwork
from cyclemlp.inference.runtimes.registry import Runtime
from cyclemlp.tasks.card import ModelCard

_ERRORS_ONLY = 3


class OnnxNetwork(ExportedNetwork):
    """An `.onnx` file written by `cyclemlp export`. Raises CheckpointError where it is none."""

    def __init__(self, path: Path, threads: int = 0) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = _ERRORS_ONLY
        with _named_errors(path):
            # Without its fallback: to the same provider, after four lines on stdout.
            self._session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
            entries = self._session.get_modelmeta().custom_metadata_map
        super().__init__(path, entries)

    def __call__(self, images: FloatArray) -> tuple[FloatArray, ...]:
        """Outputs in the order of the file's facts."""
        with _named_errors(self._path):
            return tuple(self._session.run(list(self.facts.outputs), {INPUT_NAME: images}))


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Whatever ONNX Runtime raises in the block becomes a CheckpointError about `path`."""
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    # Its errors have no base class of their own.
    names = "Fail InvalidArgument InvalidGraph InvalidProtobuf NoModel NotImplemented RuntimeException"
    unusable = tuple(getattr(states, name) for name in names.split())
    try:
        yield
    except (*unusable, ValueError) as error:  # the latter for names that are not UTF-8, and inputs that are missing
        raise CheckpointError(f"{path} is not a usable ONNX file ({reason_of(error)}): export it again") from error


def load(path: Path, _device: str, threads: int) -> tuple[OnnxNetwork, ModelCard]:
    """The network and card of an `.onnx` file. Raises CheckpointError."""
    network = OnnxNetwork(path, threads)
    return network, network.facts.card


RUNTIME = Runtime((".onnx",), load, package="onnxruntime", extra="export")
