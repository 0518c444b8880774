"""Networks are saved, copied and moved in every form, and trained in other people's loops."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from safetensors.torch import load_file, save_file, save_model
from small_networks import create, images
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3, reparameterize_model
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

import cyclemlp

FORMS: dict[str, Callable[[nn.Module], Any]] = {
    "plain": lambda model: model,
    "lean": cyclemlp.lean_,
    "fused": reparameterize_model,
}


@pytest.fixture(params=FORMS)
def form(name: str, request: pytest.FixtureRequest) -> Any:
    return FORMS[request.param](create(name)).eval()


def test_every_form_is_written_by_safetensors(form: Any, tmp_path: Path) -> None:
    assert all(value.is_contiguous() for value in form.state_dict().values())
    save_file(form.state_dict(), tmp_path / "a.safetensors")
    save_model(form, str(tmp_path / "b.safetensors"))
    with torch.no_grad():
        expected = form(images())
        for path in tmp_path.iterdir():
            for parameter in form.parameters():
                parameter.zero_()
            form.load_state_dict(load_file(path))
            assert torch.equal(form(images()), expected)


def test_every_form_is_copied_and_pickled(form: Any) -> None:
    with torch.no_grad():
        expected = form(images())
        for other in (copy.deepcopy(form), pickle.loads(pickle.dumps(form))):
            assert torch.equal(other(images()), expected)


def test_channels_last(form: Any) -> None:
    with torch.no_grad():
        expected = form(images())
        form.to(memory_format=torch.channels_last)
        found = form(images().to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("average", [ModelEmaV3, AveragedModel])
def test_moving_averages(name: str, average: Any) -> None:
    model = create(name)
    averaged = average(model)
    for update in (averaged.update if average is ModelEmaV3 else averaged.update_parameters,) * 2:
        update(model)
    with torch.no_grad():
        torch.testing.assert_close(averaged.module(images()), model(images()))


@pytest.mark.filterwarnings("ignore:Grad strides do not match")  # of a depthwise kernel: strides of axes of length one
def test_ddp_finds_no_unused_parameter(name: str, tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        features = create(name, features_only=True, out_indices=(1, 3))
        model = DistributedDataParallel(features)
        for _ in range(2):  # the second step fails where the first left a parameter without a gradient
            sum(each.square().mean() for each in model(images())).backward()
    finally:
        torch.distributed.destroy_process_group()


def test_layer_decay_of_timms_optimiser(model: Any) -> None:
    optimizer = create_optimizer_v2(model, "adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.5)
    scales = {group["lr_scale"] for group in optimizer.param_groups}
    assert max(scales) == 1
    assert len(scales) >= 6
    before = model(images()).square().mean()
    before.backward()
    optimizer.step()
    assert model(images()).square().mean() < before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_in_every_form(form: Any, dtype: torch.dtype) -> None:
    with torch.no_grad():
        expected = form(images())
        found = form.to(dtype)(images().to(dtype))
    assert found.dtype == dtype
    assert (found.float() - expected).norm() <= 0.1 * expected.norm()


@pytest.mark.filterwarnings("ignore")
def test_dynamic_int8_of_torch(model: Any) -> None:
    quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        expected, found = model(images()), quantized(images())
    assert not torch.equal(found, expected)
    assert (found - expected).norm() <= 0.2 * expected.norm()
