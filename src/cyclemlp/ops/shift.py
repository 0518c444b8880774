"""Shifts of channel groups: one plan says what moves where, four functions carry it out.

A plan is a tuple of moves. A move reads a group of channels at an offset, as a 1x1 layer does that looks to the side:

    out[b, i, j, target] = x[b, i + down, j + right, source],      x is zero outside the image

`shift` returns a whole map in which groups have moved, `read_moved` only the moved groups (in place, without
temporaries), `add_back` is the adjoint of `read_moved`, and `padded_groups` is the form for graphs, one Pad a group.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Move(NamedTuple):
    """Channels `source` are read `down` rows below and `right` columns to the right; they become channels `target`."""

    source: slice
    target: slice
    down: int
    right: int

    @property
    def moves(self) -> bool:
        """Whether there is an offset at all."""
        return bool(self.down or self.right)

    @property
    def axes(self) -> Iterator[tuple[int, int]]:
        """(dimension, offset) of each axis along which this moves."""
        return ((dim, offset) for dim, offset in ((1, self.down), (2, self.right)) if offset)


Plan = tuple[Move, ...]


def in_place_of_itself(channels: slice, down: int, right: int) -> Move:
    """A move of channels that keep their index."""
    return Move(channels, channels, down, right)


def adjoint(plan: Plan) -> Plan:
    """The plan that moves every group back."""
    return tuple(Move(target, source, -down, -right) for source, target, down, right in plan)


def only_moved(plan: Plan, channels: int) -> Plan:
    """The moves with an offset, their targets packed one after the other; `channels` is the width of the input."""
    packed, place = [], 0
    for move in plan:
        if size := len(range(channels)[move.source]) if move.moves else 0:
            packed.append(move._replace(target=slice(place, place + size)))
            place += size
    return tuple(packed)


def is_exporting() -> bool:
    """Whether torch.export is recording a graph, and not torch.compile.

    In code that torch.compile follows, older versions (2.8 does) answer True to `torch.compiler.is_exporting` as well.
    """
    return torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling()


def is_recorded() -> bool:
    """Whether torch.export or torch.jit.trace is recording a graph."""
    return is_exporting() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]


def shift(x_nhwc: Tensor, plan: Plan) -> Tensor:
    """A copy of `x_nhwc` (batch, height, width, channels) with the groups of `plan` moved; zeros enter at the border.

    One contiguous copy, then only the channels that move are written again: faster on a CPU than masks, or than padding
    and selecting. A recorded graph holds `padded_groups` instead, because a write into a slice takes dozens of nodes.
    Every target must equal its source, and in a graph the plan must name every channel.
    """
    if is_recorded() or torch.compiler.is_compiling():
        return _shift_by_padding(x_nhwc, plan)
    out = x_nhwc.clone(memory_format=torch.contiguous_format)
    for move in plan:
        if move.moves:
            _write(out, x_nhwc, move)
    return out


def read_moved(x_nhwc: Tensor, plan: Plan, channels: int | None = None) -> Tensor:
    """The moved groups alone: (batch, height, width, channels), by default for a plan from `only_moved`.

    With more `channels` than the plan has targets, the others are left uninitialised.
    """
    channels = channels if channels is not None else plan[-1].target.stop if plan else 0
    out = x_nhwc.new_empty((*x_nhwc.shape[:3], channels))
    for move in plan:
        _write(out, x_nhwc, move)
    return out


def add_back(total_nhwc: Tensor, moved_nhwc: Tensor, plan: Plan) -> Tensor:
    """`total` plus the adjoint of `read_moved` applied to `moved`, in place."""
    for move in plan:
        written, read = _overlap(moved_nhwc[..., move.target], total_nhwc[..., move.source], move)
        read.add_(written)
    return total_nhwc


def unread(group_nhwc: Tensor, move: Move) -> Tensor:
    """The strip of a group, already sliced out, that its move along one axis reads nowhere."""
    ((dim, offset),) = move.axes
    length = group_nhwc.shape[dim]
    gone = min(abs(offset), length)
    return group_nhwc.narrow(dim, 0 if offset > 0 else length - gone, gone)


def padded_groups(x_nhwc: Tensor, plan: Plan) -> list[Tensor]:
    """The groups of `plan`, one after the other, in few nodes of a graph and for any size: negative padding cuts."""
    return [_padded(x_nhwc, move) for move in plan]


def _padded(x: Tensor, move: Move) -> Tensor:
    if not move.moves:
        return x[..., move.source]
    if move.source.step not in (None, 1):
        x, (start, behind) = x[..., move.source], (0, 0)
    else:  # the same node cuts the group out of the channels
        start, behind = move.source.start, move.source.stop - x.shape[-1]
    padding = [-start, behind, -move.right, move.right, -move.down, move.down]
    added, cut = [max(edge, 0) for edge in padding], [min(edge, 0) for edge in padding]
    # An image may be smaller than an offset above 1: then it grows before it is cut.
    return F.pad(x, padding) if max(added) <= 1 else F.pad(F.pad(x, added), cut)


def _shift_by_padding(x: Tensor, plan: Plan) -> Tensor:
    groups = torch.cat(padded_groups(x, plan), -1)
    order = [channel for move in plan for channel in range(x.shape[-1])[move.target]]
    if order == sorted(order):
        return groups
    places = sorted(range(len(order)), key=order.__getitem__)
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        # OpenVINO's conversion of a traced module misreads an index behind an ellipsis at sizes that are free.
        return groups.index_select(-1, torch.tensor(places, device=x.device))
    return groups[..., places]  # as an index_select, ONNX Runtime takes three times as long


def _write(out: Tensor, x: Tensor, move: Move) -> None:
    target = out[..., move.target]
    written, read = _overlap(target, x[..., move.source], move)
    written.copy_(read)
    for dim, offset in move.axes:
        gone = min(abs(offset), target.shape[dim])
        target.narrow(dim, target.shape[dim] - gone if offset > 0 else 0, gone).zero_()


def _overlap(target: Tensor, source: Tensor, move: Move) -> Sequence[Tensor]:
    """The parts of both that lie on each other; neither has any where the offset is larger than the image."""
    for dim, offset in move.axes:
        length = target.shape[dim]
        kept = max(length - abs(offset), 0)
        ahead, behind = (0, length - kept) if offset > 0 else (length - kept, 0)
        target, source = target.narrow(dim, ahead, kept), source.narrow(dim, behind, kept)
    return target, source
