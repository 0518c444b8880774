"""The runtimes: each builds its one case in a process of its own. Those of exported files do without torch."""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cyclemlp.errors import ConfigError, did_you_mean
from cyclemlp.inference.rounds import Case, Suite
from cyclemlp.inference.runtimes.registry import load_network

if TYPE_CHECKING:
    from benchmarks.subjects import Subject

FORWARD = "forward"
RUNTIMES = ("eager", "compile", "onnx", "openvino")
DEPLOYED = {"onnx": ".onnx", "openvino": ".xml"}
"""Those that run exported files, and the suffixes of these."""
AUTHORS = "authors"
"""Eager, with the authors' operator: a baseline, not a choice."""
MAX_DIFFERENCE = 1e-3
"""Maximum difference of a runtime's output from PyTorch's, as a share of the largest value; more is not measured."""


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


def suite(subject: "Subject", runtime: str, threads: int, folder: Path) -> Suite:
    """The process that measures `subject` in `runtime`, with the files that `export_all` wrote into `folder`."""
    name = suite_name(subject, runtime)
    if runtime in DEPLOYED:
        return Suite(name, file_case, (exported_file(subject, runtime, folder), threads))
    return Suite(name, torch_case, (subject, runtime))


def suite_name(subject: "Subject", runtime: str) -> str:
    """Its name in a measurement."""
    return f"{subject} {runtime}"


def torch_case(subject: "Subject", runtime: str) -> Mapping[str, Case]:
    """PyTorch: eager, compiled, or eager with the authors' operator."""
    import torch

    from benchmarks.subjects import authors_network, inference_network

    network: Callable[..., Any] = (authors_network if runtime == AUTHORS else inference_network)(subject)
    if runtime == "compile":
        network = torch.compile(network)
    images = torch.randn(subject.batch, 3, subject.size, subject.size)

    def forward() -> None:
        with torch.inference_mode():
            network(images)

    return {FORWARD: forward}


def file_case(path: Path, threads: int) -> Mapping[str, Case]:
    """An exported file in the runtime that it is for, after a comparison of its output with PyTorch's."""
    network, _ = load_network(path, "cpu", threads)
    with np.load(path.with_suffix(".npz")) as arrays:
        images, expected = arrays["images"], arrays["output"]
    check_output(network(images)[0], expected, path.name)
    return {FORWARD: lambda: network(images)}


def check_output(
    found: npt.NDArray[np.float32] | npt.NDArray[np.float64],
    expected: npt.NDArray[np.float32] | npt.NDArray[np.float64],
    what: str,
) -> None:
    """Raise RuntimeError where a runtime computes other values than PyTorch: its speed would mean nothing."""
    difference = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not difference <= MAX_DIFFERENCE:
        raise RuntimeError(f"{what} differs from PyTorch by {difference:.1e} of the largest output; it is not measured")


def exported_file(subject: "Subject", runtime: str, folder: Path) -> Path:
    """Where `export_all` writes the file of `subject` for `runtime`."""
    return folder / f"{subject.model}-{subject.size}-{subject.batch}-{runtime}{DEPLOYED[runtime]}"


def export_all(wanted: Iterable[tuple["Subject", str]], folder: Path, processes: int) -> None:
    """Write a file for each subject and runtime into `folder`, several at a time, in processes that end afterwards.

    Raises:
        MissingExtraError: the exporter is not installed.
    """
    subjects = [(subject, runtime, folder) for subject, runtime in dict.fromkeys(wanted)]
    if subjects:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            list(pool.map(export, *zip(*subjects, strict=True)))


def export(subject: "Subject", runtime: str, folder: Path) -> None:
    """Write the graph form of `subject` for its own size and batch, and `.npz` next to it: input and output."""
    import torch

    from benchmarks.subjects import plain_network
    from cyclemlp.export.formats import FORMATS
    from cyclemlp.heads.network import SizeRule
    from cyclemlp.inference.runtimes.facts import Facts
    from cyclemlp.models.forms.fused import graph_form
    from cyclemlp.tasks.card import ModelCard

    path, size = exported_file(subject, runtime, folder), subject.size
    plain = plain_network(subject)
    images = torch.from_numpy(np.random.default_rng(0).standard_normal((subject.batch, 3, size, size), np.float32))
    with torch.inference_mode():
        output = plain(images).numpy()
    card = ModelCard("classification", subject.model, "linear", ("any",), image_size=size, crop_pct=1.0)
    with torch.no_grad():
        program = torch.export.export(graph_form(plain, size, subject.batch), (images,), strict=False)
    FORMATS[runtime].write(program, Facts(card, SizeRule(size, size), ("logits",)), path, None)
    np.savez(path.with_suffix(".npz"), images=images.numpy(), output=output)
