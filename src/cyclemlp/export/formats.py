"""The file formats: ONNX, OpenVINO (the graph in .xml, the weights in .bin) and torch.export archives (.pt2)."""

import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.export import ExportedProgram

from cyclemlp.errors import MissingExtraError
from cyclemlp.inference.runtimes.facts import INPUT_NAME, PREFIX, Facts
from cyclemlp.inference.runtimes.openvino import FACTS_SECTION, core
from cyclemlp.inference.runtimes.pt2_archive import FACTS_FILE

Graph = Mapping[str, object]
"""What the report says of the written graph: number of nodes, operators, version of the operator set."""


@dataclass(frozen=True)
class Format:
    """A kind of file that some runtime opens."""

    suffix: str
    """Of the file; the runtime that is registered for it runs the file."""
    write: Callable[[ExportedProgram, Facts, Path], Graph]
    """Writes the file with the facts in it. Raises MissingExtraError."""
    companions: tuple[str, ...] = ()
    """Suffixes of the other files that belong to it."""

    def files(self, path: Path) -> list[Path]:
        """All that is written for the file `path`, which comes last."""
        return [*(path.with_suffix(suffix) for suffix in self.companions), path]


def write_onnx(program: ExportedProgram, facts: Facts, path: Path) -> Graph:
    """Write an ONNX file with the weights in it."""
    onnx_program = _to_onnx(program, facts)
    model = onnx_program.model
    for node in model.graph:
        node.metadata_props.clear()  # stack traces, which name folders of the machine that exported
    model.metadata_props.update(facts.to_entries())
    onnx_program.save(path, external_data=False)
    opset = {domain or "ai.onnx": number for domain, number in model.opset_imports.items()}
    return {"opset": opset, **_operator_counts(node.op_type for node in model.graph)}


def write_openvino(program: ExportedProgram, facts: Facts, path: Path) -> Graph:
    """Write the two files, by way of ONNX, whose graph OpenVINO understands best."""
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "export") from error
    between = path.with_suffix(".onnx")
    try:
        _to_onnx(program, facts).save(between, external_data=False)
        model = core().read_model(between)
        for key, text in facts.to_entries().items():
            model.set_rt_info(text, [FACTS_SECTION, key.removeprefix(PREFIX)])
        openvino.save_model(model, path, compress_to_fp16=False)
    finally:
        between.unlink(missing_ok=True)
    return _operator_counts(node.get_type_name() for node in model.get_ops())


def write_pt2(program: ExportedProgram, facts: Facts, path: Path) -> Graph:
    """Write a torch.export archive."""
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names folders of the machine that exported
    with _quiet():
        torch.export.save(program, path, extra_files={FACTS_FILE: json.dumps(facts.to_entries())})
    return _operator_counts(str(node.target) for node in program.graph.nodes if node.op == "call_function")


FORMATS = {
    "onnx": Format(".onnx", write_onnx),
    "openvino": Format(".xml", write_openvino, companions=(".bin",)),
    "pt2": Format(".pt2", write_pt2),
}
"""All that can be written, by name."""


def _to_onnx(program: ExportedProgram, facts: Facts) -> torch.onnx.ONNXProgram:
    try:
        with _quiet():
            exported = torch.onnx.export(
                program, dynamo=True, verbose=False, input_names=[INPUT_NAME], output_names=list(facts.outputs)
            )
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "export") from error
    assert exported is not None  # it is None where a file is written at once
    return exported


def _operator_counts(operators: Iterable[str]) -> dict[str, object]:
    """The number of nodes of a graph, and of each operator, from the operators of its nodes."""
    listed = sorted(operators)
    return {"nodes": len(listed), "operators": {name: listed.count(name) for name in dict.fromkeys(listed)}}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporters, which write on standard output and warn of their own code."""
    talkers = [logging.getLogger(name) for name in ("torch.onnx", "onnx_ir", "onnxscript")]
    levels = [talker.level for talker in talkers]
    for talker in talkers:
        talker.setLevel(logging.ERROR)
    try:
        with redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for talker, level in zip(talkers, levels, strict=True):
            talker.setLevel(level)
