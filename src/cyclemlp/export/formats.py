"""A graph in the file format of a runtime, with what the file says about itself inside it."""

import json
import logging
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch.export import ExportedProgram

from cyclemlp.errors import MissingExtraError
from cyclemlp.inference.runtimes.network import INPUT_NAME, PREFIX, Facts
from cyclemlp.inference.runtimes.torch import FACTS_FILE

Graph = dict[str, Any]
"""Facts of the written graph for the report: number of nodes, operators, version of the operator set."""

Writer = Callable[[ExportedProgram, Facts, Path], Graph]
"""Writes the file, and beside an .xml its .bin."""


def write_onnx(program: ExportedProgram, facts: Facts, path: Path) -> Graph:
    """An ONNX file with the weights in it. Raises MissingExtraError."""
    onnx_program = _onnx_program(program, facts)
    model = onnx_program.model
    for node in model.graph:
        node.metadata_props.clear()  # stack traces, which name folders of the machine that exported
    model.metadata_props.update(facts.to_entries())
    onnx_program.save(path, external_data=False)
    operators = Counter(node.op_type for node in model.graph)
    return {
        "opset": {domain or "ai.onnx": number for domain, number in model.opset_imports.items()},
        "nodes": sum(operators.values()),
        "operators": dict(sorted(operators.items())),
    }


def write_openvino(program: ExportedProgram, facts: Facts, path: Path) -> Graph:
    """An .xml file and its .bin, by way of ONNX, whose graph OpenVINO understands best. Raises MissingExtraError."""
    try:
        import openvino

        from cyclemlp.inference.runtimes.openvino import FACTS_SECTION
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "export") from error
    between = path.with_suffix(".onnx")
    try:
        _onnx_program(program, facts).save(between, external_data=False)
        model = openvino.Core().read_model(between)
        for key, text in facts.to_entries().items():
            model.set_rt_info(text, [FACTS_SECTION, key.removeprefix(PREFIX)])
        openvino.save_model(model, path, compress_to_fp16=False)
    finally:
        between.unlink(missing_ok=True)
    operators = Counter(node.get_type_name() for node in model.get_ops())
    return {"nodes": sum(operators.values()), "operators": dict(sorted(operators.items()))}


def write_pt2(program: ExportedProgram, facts: Facts, path: Path) -> Graph:
    """A torch.export archive."""
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names folders of the machine that exported
    with _quiet():
        torch.export.save(program, path, extra_files={FACTS_FILE: json.dumps(facts.to_entries())})
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    operators = Counter(str(node.target) for node in nodes)
    return {"nodes": len(nodes), "operators": dict(sorted(operators.items()))}


WRITERS: Mapping[str, Writer] = MappingProxyType({"onnx": write_onnx, "openvino": write_openvino, "pt2": write_pt2})


def _onnx_program(program: ExportedProgram, facts: Facts) -> Any:
    try:
        with _quiet():
            return torch.onnx.export(
                program, dynamo=True, verbose=False, input_names=[INPUT_NAME], output_names=list(facts.outputs)
            )
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "export") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter talks on standard output, and warns of its own code."""
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
