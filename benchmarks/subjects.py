"""The networks that are measured: ours in their exact inference form, the authors' form, and rivals from timm."""

from dataclasses import dataclass

import torch
from timm.utils import reparameterize_model
from torch import Tensor, nn

from benchmarks.operators import authors_cycle_fc, authors_offsets
from cyclemlp.models.classifiers import create_classifier
from cyclemlp.models.flops import count_flops
from cyclemlp.ops import CycleFC


@dataclass(frozen=True)
class Subject:
    """A classifier at one image size and batch."""

    model: str
    """Name in timm's registry."""
    size: int = 224
    """Edge of the square images, in pixels."""
    batch: int = 1
    """Images at a time."""

    def __str__(self) -> str:
        return f"{self.model} {self.size} batch {self.batch}"


def plain_network(subject: Subject) -> nn.Module:
    """The network with the same random weights in every process, in eval mode. Raises ConfigError as it is built."""
    torch.manual_seed(0)
    return create_classifier(subject.model, 1000, image_size=subject.size).eval()


def inference_network(subject: Subject) -> nn.Module:
    """The network in its exact inference form, where it has one."""
    return reparameterize_model(plain_network(subject).eval())


def authors_network(subject: Subject) -> nn.Module:
    """The plain network as the authors' code computes it: deformable convolutions, nothing recomputed in training."""
    return with_authors_operator(plain_network(subject))


def with_authors_operator(network: nn.Module) -> nn.Module:
    """`network` itself, with every CycleFC replaced by a deformable convolution."""
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, CycleFC):
                setattr(module, name, AuthorsCycleFC(child))
    return network


class AuthorsCycleFC(nn.Module):
    """A CycleFC with torchvision's deformable convolution, on channels-last activations as in the authors' blocks."""

    def __init__(self, layer: CycleFC) -> None:
        super().__init__()
        self.weight = nn.Parameter(layer.weight.detach()[:, :, None, None].clone())
        self.bias = nn.Parameter(layer.bias.detach().clone())
        self.register_buffer("offset", authors_offsets(layer.in_features, layer.stepsize))
        self.offset: Tensor

    def forward(self, x_nhwc: Tensor) -> Tensor:
        """(batch, height, width, in) -> (batch, height, width, out)."""
        out = authors_cycle_fc(self.offset, x_nhwc.permute(0, 3, 1, 2), self.weight, self.bias)
        return out.permute(0, 2, 3, 1)


def counts(subject: Subject) -> dict[str, int]:
    """Parameters, and of one image the FLOPs by the paper's rule and the multiply-adds alone, as published: unfused."""
    with torch.device("meta"):
        network = create_classifier(subject.model, 1000, image_size=subject.size)
    return {
        "params": sum(parameter.numel() for parameter in network.parameters()),
        "flops": count_flops(network, subject.size, subject.size),
        "multiply_adds": count_flops(network, subject.size, subject.size, norm_flops=0),
    }
