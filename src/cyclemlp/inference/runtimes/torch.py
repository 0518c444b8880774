"""Networks that torch runs: checkpoints and exported .pt2 files."""

import json
from collections.abc import Callable
from pathlib import Path
from zipfile import BadZipFile

import torch
from timm.utils import reparameterize_model
from torch import Tensor, nn

from cyclemlp.data.resampling import FloatArray
from cyclemlp.errors import CheckpointError, ConfigError
from cyclemlp.inference.runtimes.network import Facts, SizeRule
from cyclemlp.tasks.card import ModelCard, load_model

FACTS_FILE = "cyclemlp.json"
"""The entry of a .pt2 archive that holds the metadata."""


class TorchNetwork:
    """A torch module on a device, given arrays."""

    def __init__(self, module: Callable[[Tensor], Tensor | tuple[Tensor, ...]], device: torch.device, rule: SizeRule):
        self.size_rule = rule
        self._module = module
        self._device = device

    def __call__(self, images: FloatArray) -> tuple[FloatArray, ...]:
        """Outputs as arrays, float32."""
        # Not inference mode: tensors that a network in training caches would then be useless for its gradients.
        with torch.no_grad():
            given = self._module(torch.from_numpy(images).to(self._device))
            outputs = (given,) if isinstance(given, Tensor) else given
            return tuple(output.float().cpu().numpy() for output in outputs)


def inference_form(model: nn.Module) -> nn.Module:
    """A copy of the network as it is run for prediction and exported: exact, and faster where there is such a form."""
    fused: nn.Module = reparameterize_model(model.eval())
    return fused


def network_of(model: nn.Module, device: str = "auto") -> TorchNetwork:
    """The network of a torch model, which pads images to a size it takes by itself. Raises ConfigError."""
    place = choose_device(device)
    return TorchNetwork(inference_form(model).to(place), place, SizeRule(1))


def training_network(model: nn.Module, device: torch.device) -> TorchNetwork:
    """The network of a torch model in training, as it stands: no copy, and not in the inference form."""
    return TorchNetwork(model, device, SizeRule(1))


def load_checkpoint(path: Path, device: str) -> tuple[TorchNetwork, ModelCard]:
    """The network and card of a run folder or weight file. Raises CheckpointError and ConfigError."""
    model, card = load_model(path)
    return network_of(model, device), card


def load_pt2(path: Path, device: str) -> tuple[TorchNetwork, ModelCard]:
    """The network and card of a .pt2 file. Raises CheckpointError and ConfigError."""
    place = choose_device(device)
    extra = {FACTS_FILE: ""}
    try:
        program = torch.export.load(path, extra_files=extra)
    except (RuntimeError, ValueError, KeyError, OSError, BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is not a readable .pt2 file: {reason}; export it again") from error
    facts = Facts.from_entries(json.loads(extra[FACTS_FILE] or "{}"), path)
    # The guards say that no map is one position wide, which the graph does not need; the parity report has such sizes.
    module = program.module(check_guards=False)
    return TorchNetwork(module.to(place), place, facts.size_rule), facts.card


def choose_device(name: str) -> torch.device:
    """The device called `name`; `auto` is a GPU where there is one. Raises ConfigError."""
    usable = ["cpu"]
    if torch.cuda.is_available():
        usable.insert(0, "cuda")
    elif torch.backends.mps.is_available():
        usable.insert(0, "mps")
    if name == "auto":
        return torch.device(usable[0])
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in usable or (device.index or 0) >= max(1, torch.cuda.device_count()):
        raise ConfigError(f"device {name!r} is not usable here: allowed are auto, {', '.join(usable)}")
    return device
