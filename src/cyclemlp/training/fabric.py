"""How a run uses the machine: Lightning Fabric for device, number format and processes that work together; recomputed
activations and compilation, which leave the result the same up to rounding.
"""

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision
from lightning.fabric.strategies.ddp import DDPStrategy
from lightning.fabric.strategies.single_device import SingleDeviceStrategy
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn.modules.batchnorm import _BatchNorm

from cyclemlp.errors import ConfigError, reason_of
from cyclemlp.heads.pyramid import PyramidNetwork
from cyclemlp.inference.runtimes.torch import choose_device
from cyclemlp.models.forms.lean import lean_
from cyclemlp.models.torch_internals import has_compiler
from cyclemlp.tasks.options import FixedPrecision, Precision, RunConfig

_logger = logging.getLogger(__name__)

CompilerBackend = str | Callable[[GraphModule, list[Tensor]], Callable[..., Any]]
"""As `torch.compile` takes it."""


class Autocast(MixedPrecision):
    """Mixed precision by autocast alone; Fabric would also cast the batch, and boxes need float32 coordinates."""

    def convert_input(self, data: Any) -> Any:
        """Return `data` as it is."""
        return data


def build_fabric(config: RunConfig) -> Fabric:
    """Fabric for the device, processes and precision that `config` asks for.

    Raises ConfigError where the device is not there, or the strategy is not supported or cannot be used here.
    """
    for name in ("lightning.fabric", "lightning.pytorch"):  # of several processes the latter announces the start
        logging.getLogger(name).setLevel(logging.ERROR)
    machine = config.machine
    device = available_device(machine.device)
    precision = choose_precision(config.optimisation.precision, device)
    devices, nodes = _processes(machine.devices, machine.num_nodes)
    try:
        with without_advice():
            fabric = Fabric(
                accelerator=device,
                devices=devices,
                num_nodes=nodes,
                strategy=machine.strategy,
                precision="32-true" if precision == "32-true" else None,
                plugins=None if precision == "32-true" else [Autocast(precision, device)],
            )
    except (ValueError, TypeError, RuntimeError, ImportError) as error:
        reason = reason_of(error)
        raise ConfigError(f"--strategy {machine.strategy} --devices {machine.devices}: {reason}") from error
    if not isinstance(fabric.strategy, SingleDeviceStrategy | DDPStrategy):
        raise ConfigError(
            f"--strategy {machine.strategy} is not supported, because checkpoints and the moving average need the whole"
            " network in every process: use auto or one of the ddp strategies"
        )
    return fabric


def available_device(wanted: str) -> str:
    """The kind of processor to train on: `wanted`, or the fastest there is where it is `auto`."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: torch finds no CUDA GPU here; use --device auto")
    return choose_device("auto").type if wanted == "auto" else wanted


def choose_precision(wanted: Precision, device: str) -> FixedPrecision:
    """The number format. On CUDA, `auto` is mixed: bfloat16 where the GPU computes with it rather than emulates it."""
    if wanted == "auto":
        if device != "cuda":
            return "32-true"
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    if wanted == "16-mixed" and device == "cpu":
        return "bf16-mixed"  # CPUs gain nothing from float16, and would need its loss scaling
    return wanted


def _processes(devices: int, nodes: int) -> tuple[int, int]:
    """Processes per machine and machines: the numbers of torchrun if it started this process."""
    if not torch.distributed.is_torchelastic_launched():
        return devices, nodes
    per_machine = int(os.environ["LOCAL_WORLD_SIZE"])
    return per_machine, int(os.environ["WORLD_SIZE"]) // per_machine


def accelerate(model: nn.Module, config: RunConfig) -> None:
    """Change `model` in place as `config.machine` asks; the names of its weights stay the same.

    Raises ConfigError where the backbone cannot recompute its activations.
    """
    lean_(model)
    if config.machine.sync_batchnorm:
        synchronise_batch_norm(model, config)
    if config.machine.checkpoint_activations:
        checkpoint_activations(model, config.model)
    if config.machine.compile and has_compiler():
        compile_parts(model)
    elif config.machine.compile:
        _logger.warning("--compile: torch.compile finds no C++ compiler here; training goes on without it")


def synchronise_batch_norm(model: nn.Module, config: RunConfig) -> None:
    """Let BatchNorm see the batches of all devices, where there are several; frozen layers stay as they are."""
    devices, nodes = _processes(config.machine.devices, config.machine.num_nodes)
    if devices * nodes == 1:
        return
    if available_device(config.machine.device) != "cuda":
        _logger.warning("--sync-batchnorm: torch can do that on CUDA GPUs alone; each process keeps its own statistics")
        return
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm) and all(each.requires_grad for each in child.parameters()):
                setattr(parent, name, convert_sync_batchnorm(child))


def compile_parts(model: nn.Module, backend: CompilerBackend = "inductor") -> None:
    """Compile what every batch passes through, at its first call; the names of weights stay the same.

    A loss may call other methods than `forward`, which compiling the whole network would leave as they are. So the
    parts of a dense network are compiled; what lies between them (padding, matching, sampling) depends on the data.
    """
    parts = model.compiled_parts() if isinstance(model, PyramidNetwork) else [model]
    for part in parts:
        part.compile(backend=backend)


def checkpoint_activations(model: nn.Module, name: str) -> None:
    """Let the backbone called `name` inside `model` recompute its blocks' activations in the backward pass.

    Raises ConfigError where it does not support this.
    """
    able: list[Any] = [module for module in model.modules() if hasattr(module, "set_grad_checkpointing")]
    try:
        for module in able:
            module.set_grad_checkpointing(True)
    except AssertionError:  # raised by networks of timm that do not support it
        able = []
    if not able:
        raise ConfigError(
            f"--checkpoint-activations: model {name!r} cannot do that; leave it out, or take a cyclemlp_*"
        )


@contextmanager
def without_advice() -> Iterator[None]:
    """Lightning's warnings are advice on options that are chosen here on purpose."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\.")
        yield


def any_process(fabric: Fabric, here: bool) -> bool:
    """Whether `here` holds in any of the processes; all of them have to ask."""
    if fabric.world_size == 1:
        return here
    return bool(fabric.all_reduce(torch.tensor(float(here), device=fabric.device), reduce_op="sum"))
