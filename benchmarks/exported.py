"""ONNX files of the measured networks, each with an input and the output PyTorch gives for it."""

import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from benchmarks.subjects import Subject

MOST_DIFFERENCE = 1e-3
"""Largest difference of a runtime's output from PyTorch's, as a share of the largest value, that is measured at all."""


def export_all(subjects: Iterable["Subject"], folder: Path, processes: int) -> Mapping["Subject", Path]:
    """Write one file a subject into `folder`, several at a time, in processes that end afterwards.

    Raises:
        MissingExtraError: the exporter is not installed.
    """
    files = {subject: folder / f"{number}.onnx" for number, subject in enumerate(dict.fromkeys(subjects))}
    if files:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            list(pool.map(export, files.keys(), files.values()))
    return files


def export(subject: "Subject", path: Path) -> None:
    """Write the graph form of `subject` for its own size and batch, and `.npz` beside it: input and output."""
    import torch

    from benchmarks.subjects import plain_network
    from cyclemlp.errors import MissingExtraError
    from cyclemlp.models.forms.fused import graph_form

    plain = plain_network(subject)
    images = np.random.default_rng(0).standard_normal((subject.batch, 3, subject.size, subject.size), np.float32)
    with torch.inference_mode():
        output = plain(torch.from_numpy(images)).numpy()
    try:
        with redirect_stdout(sys.stderr), torch.no_grad():  # the exporter talks on standard output
            form = graph_form(plain, subject.size, subject.batch)
            program: Any = torch.onnx.export(form, (torch.from_numpy(images),), dynamo=True, verbose=False)
            program.save(path, external_data=False)
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "export") from error
    np.savez(path.with_suffix(".npz"), images=images, output=output)


def sample(path: Path) -> tuple[Any, Any]:
    """The input and the output that were written beside the file."""
    with np.load(path.with_suffix(".npz")) as arrays:
        return arrays["images"], arrays["output"]


def check_output(found: Any, wanted: Any, what: str) -> None:
    """Raise RuntimeError where a runtime computes something else than PyTorch: its speed would mean nothing."""
    difference = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    if not difference <= MOST_DIFFERENCE:
        raise RuntimeError(f"{what} differs from PyTorch by {difference:.1e} of the largest output; it is not measured")
