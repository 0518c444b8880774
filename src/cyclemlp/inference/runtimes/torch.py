"""Networks that torch runs: checkpoints and exported .pt2 files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclemlp.documents import DocumentError, parse_json
from cyclemlp.errors import CheckpointError, ConfigError, reason_of
from cyclemlp.files import JsonObject
from cyclemlp.heads.network import FloatArray, SizeRule
from cyclemlp.inference.runtimes.facts import Facts
from cyclemlp.inference.runtimes.pt2_archive import FACTS_FILE, check_torch, checked_archive
from cyclemlp.inference.runtimes.registry import RUN_FOLDER, Runtime
from cyclemlp.tasks.card import ModelCard, load_model

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(eq=False)
class TorchNetwork:
    """A torch module on a device, given arrays."""

    module: "Callable[[Tensor], Tensor | tuple[Tensor, ...]]"
    device: "torch.device"
    size_rule: SizeRule

    def __call__(self, images: FloatArray) -> tuple[FloatArray, ...]:
        """Outputs as arrays, float32."""
        import torch

        # Not inference mode: what a network in training caches in it would be useless for its gradients.
        with torch.no_grad():
            given = self.module(torch.from_numpy(images).to(self.device))
            outputs = (given,) if isinstance(given, torch.Tensor) else given
            return tuple(output.float().cpu().numpy() for output in outputs)


class Pt2Network(TorchNetwork):
    """A `.pt2` file written by `cyclemlp export`, on a device. Raises CheckpointError and ConfigError."""

    def __init__(self, path: Path, device: str) -> None:
        import torch
        import torchvision  # noqa: F401  # its operators, which detectors need

        check_torch()
        place = choose_device(device)
        archive, extra = checked_archive(path), {FACTS_FILE: ""}
        try:
            program = torch.export.load(archive, extra_files=extra)
        except (MemoryError, OSError):
            raise
        except Exception as error:  # torch's readers of graphs raise what they like, also classes of their own
            raise CheckpointError(f"{path} is not a readable .pt2 file: {reason_of(error)}; export it again") from error
        self.facts = Facts.from_entries(_entries(extra[FACTS_FILE], path), path)
        # The guards say that no map is one position wide, which the graph does not need; the parity report has such
        # sizes.
        super().__init__(program.module(check_guards=False).to(place), place, self.facts.size_rule)
        self._opened = path.absolute(), device

    def __call__(self, images: FloatArray) -> tuple[FloatArray, ...]:
        """Outputs in the order of the file's facts."""
        import torch

        try:
            return super().__call__(images)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # a graph that does not fit its weights
            path = self._opened[0]
            raise CheckpointError(f"{path} is not a usable .pt2 file ({reason_of(error)}): export it again") from error

    def __reduce__(self) -> tuple[type["Pt2Network"], tuple[Path, str]]:
        """Pickled as its path: the file is opened again."""
        return Pt2Network, self._opened


def _entries(text: str, path: Path) -> JsonObject:
    """The metadata of a .pt2 file. Raises CheckpointError."""
    try:
        entries = parse_json(text or "{}")
    except DocumentError as error:
        raise CheckpointError(f"{path} has unusable metadata ({error}): export it again") from error
    return entries if isinstance(entries, dict) else {}


def network_of(model: "nn.Module", device: str = "auto") -> TorchNetwork:
    """A torch model in its exact inference form; it pads images to a size it takes by itself. Raises ConfigError."""
    from timm.utils import reparameterize_model

    place = choose_device(device)
    return TorchNetwork(reparameterize_model(model.eval()).to(place), place, SizeRule(1))


def load(path: Path, device: str, _threads: int) -> tuple[TorchNetwork, ModelCard]:
    """The network and card of a run folder, a weight file or a .pt2 file. Raises CheckpointError and ConfigError."""
    if path.suffix.lower() == ".pt2" and not path.is_dir():
        exported = Pt2Network(path, device)
        return exported, exported.facts.card
    model, card = load_model(path)
    return network_of(model, device), card


def choose_device(name: str) -> "torch.device":
    """The device called `name`; `auto` is a GPU where there is one. Raises ConfigError."""
    import torch

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


RUNTIME = Runtime((".pt2", RUN_FOLDER), load, package="torch", cpu_only=False)
