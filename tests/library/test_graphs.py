"""Graphs that others record hold at sizes that they did not see: jit, OpenVINO, torch.export, ONNX, torch.compile."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from every_format import needs_pt2
from small_networks import create, images
from torch import Tensor, nn
from torch.export import Dim

from cyclemlp.export.run import export_run
from cyclemlp.inference.runtimes.registry import load_network
from cyclemlp.models.patches import GroupNormNHWC, PatchMerging, PatchStem
from cyclemlp.models.pyramid import stage_spacings
from cyclemlp.tasks.card import ModelCard, build_model, save_model

# The tools warn of what they have deprecated themselves.
pytestmark = pytest.mark.filterwarnings("ignore")
OTHER_SIZES = [(1, 64, 64), (3, 64, 97), (2, 37, 130)]
FREE = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)


def assert_same_at_other_sizes(graph: Callable[[Tensor], Any], model: nn.Module) -> None:
    for size in OTHER_SIZES:
        x = images(*size)
        with torch.no_grad():
            torch.testing.assert_close(torch.as_tensor(graph(x)), model(x), rtol=1e-4, atol=1e-4)


def test_jit_trace(model: Any) -> None:
    traced = torch.jit.trace(model, images(2, 64, 96))  # type: ignore[no-untyped-call]
    assert_same_at_other_sizes(traced, model)
    traced(images()).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", ["asmlp_tiny", "cyclemlp_tiny"])
def test_openvino_converts_the_module(model: Any) -> None:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    from cyclemlp.inference.runtimes.openvino import core

    converted = openvino.convert_model(model, example_input=images(2, 64, 96))
    compiled = core().compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert_same_at_other_sizes(lambda x: compiled(x.numpy())[0], model)


def test_torch_export(model: Any) -> None:
    program = torch.export.export(model, (images(2, 64, 96),), dynamic_shapes=FREE)
    assert_same_at_other_sizes(program.module(), model)


def onnx_session(model: nn.Module, **options: Any) -> Callable[[Tensor], Any]:
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    program = torch.onnx.export(model, (images(2, 64, 96),), dynamo=True, verbose=False, **options)
    assert program is not None
    session = runtime.InferenceSession(program.model_proto.SerializeToString())
    (name,) = [each.name for each in session.get_inputs()]
    return lambda x: session.run(None, {name: x.numpy()})[0]


@pytest.mark.parametrize(
    "options", [{"dynamic_shapes": FREE}, {"input_names": ["x"], "dynamic_axes": {"x": {0: "n", 2: "h", 3: "w"}}}]
)
def test_onnx_of_what_depends_on_odd_sizes(options: dict[str, Any]) -> None:
    """Stem and merging of the networks with patches, which pad: the rest of them is the same at every size."""
    torch.manual_seed(0)
    stem, merging = PatchStem(3, 12, GroupNormNHWC(12)), PatchMerging(12, GroupNormNHWC(48), stage_spacings()[1])
    patches = nn.Sequential(stem, merging, create("asmlp_tiny").stages[1].blocks).eval()
    assert_same_at_other_sizes(onnx_session(patches, **options), patches)


def test_the_old_onnx_exporter(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    model, path = create("asmlp_tiny"), tmp_path / "m.onnx"
    axes = {"x": {0: "n", 2: "h", 3: "w"}}
    torch.onnx.export(model, (images(),), path, dynamo=False, opset_version=17, input_names=["x"], dynamic_axes=axes)
    session = runtime.InferenceSession(path)
    assert_same_at_other_sizes(lambda x: session.run(None, {"x": x.numpy()})[0], model)


@pytest.mark.parametrize(
    ("name", "suffix"), [pytest.param("cyclemlp_tiny", "pt2", marks=needs_pt2), ("asmlp_tiny", "onnx")]
)
def test_segmentation_with_patches_is_exported_for_any_size(name: str, suffix: str, tmp_path: Path) -> None:
    card = ModelCard("segmentation", name, "semantic-fpn", ("sea", "land"), head_width=16)
    torch.manual_seed(0)
    model, file = build_model(card).eval(), tmp_path / f"m.{suffix}"
    save_model(tmp_path / "run", model, card)
    report: Any = export_run(tmp_path / "run", file, suffix)
    assert report["sizes"]["height"] == "35 and more"
    network = load_network(file, "cpu")[0]
    for size in OTHER_SIZES:
        with torch.no_grad():
            expected = model(images(*size)).numpy()
        (found,) = network(images(*size).numpy())
        assert abs(found - expected).max() <= 1e-4 * abs(expected).max()


def test_one_compiled_graph_for_every_size_in_training() -> None:
    torch._dynamo.reset()
    graphs = []

    def backend(graph: Any, _inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    model = create("asmlp_tiny").train()  # whose maps are padded where they are odd
    compiled = torch.compile(model, backend=backend, dynamic=True, fullgraph=True)
    for size in ((2, 96, 160), (3, 161, 97), (4, 67, 130)):
        torch.testing.assert_close(compiled(images(*size)), model(images(*size)))  # type: ignore[no-untyped-call]
    assert len(graphs) == 1
