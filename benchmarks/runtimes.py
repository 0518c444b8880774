"""The runtimes: each builds its one case in a process of its own. Those of exported files do without torch."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.exported import check_output, sample
from benchmarks.worker import Case, Suite
from cyclemlp.errors import ConfigError, MissingExtraError, did_you_mean

if TYPE_CHECKING:
    from benchmarks.subjects import Subject

FORWARD = "forward"
RUNTIMES = ("eager", "compile", "onnx", "openvino")
DEPLOYED = ("onnx", "openvino")
"""Those that run exported files."""
AUTHORS = "authors"
"""Eager, with the authors' operator: a baseline, not a choice."""


def check_runtimes(names: Iterable[str]) -> None:
    """Raise ConfigError for an unknown one, or one that cannot work here."""
    for name in names:
        if name not in RUNTIMES:
            raise ConfigError(
                f"--runtime {name!r} is not known.{did_you_mean(name, RUNTIMES)} Allowed are {', '.join(RUNTIMES)}"
            )
        if name == "compile":
            check_compiler()


def check_compiler() -> None:
    """Raise ConfigError where torch.compile finds no C++ compiler."""
    from cyclemlp.models.torch_internals import has_compiler

    if not has_compiler():
        raise ConfigError("torch.compile finds no C++ compiler here: install g++ or clang, or leave it out")


def suite(subject: "Subject", runtime: str, threads: int, file: Path | None = None) -> Suite:
    """The process that measures `subject` in `runtime`; the runtimes of exported files need the file."""
    name = suite_name(subject, runtime)
    if runtime in DEPLOYED:
        return Suite(name, _DEPLOYED_CASES[runtime], (file, threads))
    return Suite(name, torch_case, (subject, runtime, threads))


def suite_name(subject: "Subject", runtime: str) -> str:
    """As it stands in a measurement."""
    return f"{subject} {runtime}"


def torch_case(subject: "Subject", runtime: str, threads: int) -> Mapping[str, Case]:
    """PyTorch: eager, compiled, or eager with the authors' operator."""
    import torch

    from benchmarks.subjects import authors_network, inference_network

    torch.set_num_threads(threads)
    network: Callable[..., Any] = (authors_network if runtime == AUTHORS else inference_network)(subject)
    if runtime == "compile":
        network = torch.compile(network)
    images = torch.randn(subject.batch, 3, subject.size, subject.size)

    def forward() -> None:
        with torch.inference_mode():
            network(images)

    return {FORWARD: forward}


def onnx_case(path: Path, threads: int) -> Mapping[str, Case]:
    """ONNX Runtime on the CPU, its graph optimisations all on."""
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise MissingExtraError("onnxruntime", "export") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    images, wanted = sample(path)
    feed = {session.get_inputs()[0].name: images}
    check_output(session.run(None, feed)[0], wanted, "ONNX Runtime")
    return {FORWARD: lambda: session.run(None, feed)}


def openvino_case(path: Path, threads: int) -> Mapping[str, Case]:
    """OpenVINO on the CPU, in float32 as the others."""
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise MissingExtraError("openvino", "export") from error
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
    }
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    request = compiled.create_infer_request()
    images, wanted = sample(path)
    check_output(request.infer([images])[compiled.output(0)], wanted, "OpenVINO")
    return {FORWARD: lambda: request.infer([images], share_inputs=True, share_outputs=True)}


_DEPLOYED_CASES: dict[str, Callable[..., Mapping[str, Case]]] = {"onnx": onnx_case, "openvino": openvino_case}
