"""Networks that pruners stumble over: each is cut exactly, or keeps what it must for the stated reason.

Every case names parameter axes that have to be prunable (so that a rule that pins everything fails) and axes that have
to be pinned with a reason; what is prunable is cut at random and compared in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from benchmarks.zoo import make_difficult, random_keep, removal_error, train_one_step
from compressor.axes import UnitMap, find_units
from compressor.program import InputSpec, Program, capture
from tests.axes import hard_networks as nets

IMAGE = InputSpec("x", (None, 3, 12, 12))
TOKENS = InputSpec("x", (None, 5, 16))
WORDS = InputSpec("words", (None, 7), "int64", high=11)

Axis = tuple[str, int]


@dataclass(frozen=True)
class Case:
    """`free`: axes with at least one removable index. `pinned`: axes without one, and a part of the reason."""

    model: Callable[[], nn.Module]
    inputs: tuple[InputSpec, ...]
    free: tuple[Axis, ...] = ()
    pinned: Mapping[Axis, str] = field(default_factory=dict)


CASES = {
    "view(-1, 9216)": Case(
        nets.hard_view, (IMAGE,), (("a.weight", 0), ("b.weight", 0), ("fc.weight", 1), ("fc.weight", 0))
    ),
    "split and concat chain": Case(
        nets.split_by_constant, (IMAGE,), (("cv1.weight", 0), ("m1.weight", 0), ("cv2.weight", 1))
    ),
    "split(x, self.c, 1)": Case(nets.split_int, (IMAGE,), (("a.weight", 0), ("out.weight", 1))),
    "num_heads in a reshape": Case(
        nets.packed_attention, (TOKENS,), (("qkv.weight", 0), ("proj.weight", 1), ("up.weight", 0), ("down.weight", 1))
    ),
    "fused attention": Case(lambda: nets.fused_attention(False), (TOKENS,), (("q.weight", 0), ("v.weight", 0))),
    "grouped queries": Case(
        lambda: nets.fused_attention(True), (TOKENS,), (("q.weight", 0), ("k.weight", 0), ("v.weight", 0))
    ),
    "grouped queries by expand": Case(
        nets.repeated_keys, (TOKENS,), (("q.weight", 0), ("k.weight", 0), ("v.weight", 0))
    ),
    "einsum attention": Case(nets.einsum_attention, (TOKENS,), (("q.weight", 0), ("v.weight", 0), ("proj.weight", 1))),
    "MultiheadAttention": Case(
        nets.module_attention, (TOKENS,), (("attention.in_proj_weight", 0), ("attention.out_proj.weight", 1))
    ),
    "single channels": Case(nets.selected, (IMAGE,), (("a.weight", 0), ("out.weight", 1))),
    "pixel shuffle": Case(
        nets.layer_chain(nets.conv(3, 24), nn.PixelShuffle(2), nn.ReLU(), nets.conv(6, 4)),
        (IMAGE,),
        (("0.weight", 0), ("3.weight", 1)),
    ),
    "pixel unshuffle": Case(
        nets.layer_chain(nets.conv(3, 6), nn.PixelUnshuffle(2), nn.ReLU(), nets.conv(24, 4)),
        (IMAGE,),
        (("0.weight", 0),),
    ),
    "GLU": Case(nets.glu, (IMAGE,), (("a.weight", 0), ("out.weight", 1))),
    "SwiGLU": Case(nets.swiglu, (TOKENS,), (("w12.weight", 0), ("out.weight", 1))),
    "transposed convolution": Case(
        nets.layer_chain(
            nets.conv(3, 8), nn.ConvTranspose2d(8, 6, 2, 2), nn.BatchNorm2d(6), nn.ReLU(), nets.conv(6, 4)
        ),
        (IMAGE,),
        (("0.weight", 0), ("1.weight", 1)),
    ),
    "grouped transposed convolution": Case(
        nets.layer_chain(nets.conv(3, 8), nn.ConvTranspose2d(8, 6, 2, 2, groups=2), nn.ReLU(), nets.conv(6, 4)),
        (IMAGE,),
        (("0.weight", 0), ("1.weight", 1)),
    ),
    "1-D convolution": Case(
        nets.layer_chain(
            nn.Conv1d(5, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(56, 3)
        ),
        (TOKENS,),
        (("0.weight", 0), ("5.weight", 1)),
    ),
    "3-D convolution": Case(
        nets.layer_chain(nn.Conv3d(2, 8, 3), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(8, 4, 1)),
        (InputSpec("x", (None, 2, 6, 6, 6)),),
        (("0.weight", 0), ("4.weight", 1)),
    ),
    "GroupNorm": Case(
        nets.layer_chain(nets.conv(3, 8), nn.GroupNorm(2, 8), nets.conv(8, 6), nn.ReLU(), nets.conv(6, 4)),
        (IMAGE,),
        (("0.weight", 0), ("1.weight", 0), ("2.weight", 0)),
    ),
    "GroupNorm of one group": Case(
        nets.layer_chain(nets.conv(3, 8), nn.GroupNorm(1, 8), nets.conv(8, 6), nn.ReLU(), nets.conv(6, 4)),
        (IMAGE,),
        (("2.weight", 0),),
        {("0.weight", 0): "normalised over 8 channels", ("1.weight", 0): "normalised over 8 channels"},
    ),
    "InstanceNorm": Case(
        nets.layer_chain(nets.conv(3, 8), nn.InstanceNorm2d(8, affine=True), nn.ReLU(), nets.conv(8, 4)),
        (IMAGE,),
        (("0.weight", 0), ("1.weight", 0)),
    ),
    "InstanceNorm without scale": Case(
        nets.layer_chain(nets.conv(3, 8), nn.InstanceNorm2d(8), nn.ReLU(), nets.conv(8, 4)),
        (IMAGE,),
        (("0.weight", 0),),
    ),
    "LSTM": Case(
        lambda: nets.recurrent(nn.LSTM),
        (TOKENS,),
        (("hidden.weight", 0), ("cell.weight_ih_l0", 0), ("embed.weight", 0)),
    ),
    "GRU": Case(
        lambda: nets.recurrent(nn.GRU),
        (TOKENS,),
        (("hidden.weight", 0), ("cell.weight_hh_l0", 1), ("embed.weight", 0)),
    ),
    "embedding": Case(
        nets.words,
        (WORDS,),
        (("embed.weight", 1), ("place", 1), ("hidden.weight", 1)),
        {("embed.weight", 0): "chosen by the input", ("place", 0): "no units along"},
    ),
    "tied embedding": Case(
        nets.tied_words,
        (WORDS,),
        (("embed.weight", 1), ("hidden.weight", 0)),
        {("embed.weight", 0): "chosen by the input"},
    ),
    "shared layer": Case(nets.shared_layer, (IMAGE,), (("a.weight", 0), ("shared.weight", 0), ("out.weight", 1))),
    "several inputs and outputs": Case(
        nets.several_inputs, (IMAGE, InputSpec("y", (None, 3, 12, 12))), (("a.weight", 0), ("c.weight", 1))
    ),
    "in-place operators": Case(nets.in_place, (IMAGE,), (("a.weight", 0), ("b.weight", 0), ("out.weight", 1))),
    "a write that another view sees": Case(nets.seen_twice, (IMAGE,), (("a.weight", 0),)),
    "unused parameters": Case(nets.unused, (IMAGE,), (("a.weight", 0),)),
    "parameters in arithmetic": Case(
        nets.arithmetic,
        (TOKENS,),
        (("embed.weight", 0), ("token", 2), ("place", 2), ("scale", 0), ("out.weight", 1)),
        {("place", 1): "no units along"},
    ),
    "CBAM": Case(
        nets.gates,
        (IMAGE,),
        (("a.weight", 0), ("down.weight", 0), ("up.weight", 0)),
        {("b.weight", 0): "over 8 positions", ("out.weight", 1): "over 8 positions"},
    ),
    "a gate of one channel": Case(
        nets.one_channel_gate, (IMAGE,), (("a.weight", 0), ("b.weight", 0), ("gate.weight", 1))
    ),
    "channel shuffle": Case(
        nets.channel_shuffle, (IMAGE,), (("a.weight", 0), ("grouped.weight", 0), ("grouped.weight", 1))
    ),
    "padded shortcut": Case(nets.padded_shortcut, (IMAGE,), (("a.weight", 0), ("b.weight", 0))),
    "depth multiplier": Case(nets.depth_multiplier, (IMAGE,), (("0.weight", 0), ("1.weight", 0))),
    "every second channel": Case(
        nets.every_second, (IMAGE,), (("b.weight", 0),), {("a.weight", 0): "a step above 1 takes some positions"}
    ),
    "flip and roll": Case(nets.moved_channels, (IMAGE,), (("a.weight", 0),), {("b.weight", 0): "rolled"}),
    "weight norm": Case(
        nets.normalised_weight,
        (IMAGE,),
        (("0.weight", 0), ("2.weight", 0), ("2.weight", 1)),
    ),
    "sizes of zero": Case(nets.zero_sized, (IMAGE,), (("a.weight", 0), ("out.weight", 1))),
    "concatenated zeros": Case(nets.constant_padding, (IMAGE,), (("a.weight", 0), ("b.weight", 0), ("out.weight", 1))),
    "divided by a norm": Case(nets.cosine, (TOKENS,), (("a.weight", 0), ("out.weight", 1))),
    "masked scores": Case(nets.masked_scores, (TOKENS,), (("q.weight", 0), ("k.weight", 0), ("v.weight", 0))),
    "wrapped regions": Case(nets.without_gradients, (IMAGE,), (("a.weight", 0), ("b.weight", 0))),
    "a batch of one": Case(nets.fixed_batch, (IMAGE,), (("a.weight", 0), ("out.weight", 1))),
}


def analysed(case: Case) -> tuple[Program, UnitMap]:
    torch.manual_seed(0)
    program = capture(case.model(), list(case.inputs))
    make_difficult(program, zero_biases=False)
    return program, find_units(program)


@pytest.mark.parametrize("name", CASES)
def test_hard_case(name: str) -> None:
    case = CASES[name]
    program, units = analysed(case)
    for axis in case.free:
        assert (units.axes[axis] >= 0).any(), f"{axis} is pinned: {units.pin_at.get(axis)}"
    for axis, reason in case.pinned.items():
        assert (units.axes[axis] < 0).all(), f"{axis} may go"
        assert reason in units.pin_at[axis].reason
    for seed in range(2):
        difference, compact = removal_error(program, units, random_keep(units, seed=seed), torch.float64)
        assert difference <= 1e-12
    assert compact.n_parameters < program.n_parameters
    train_one_step(compact)


def test_what_a_write_reaches_is_pinned() -> None:
    """Channels 2 and 3 are written where another name of that memory is read; the others need not stay for it."""
    _, units = analysed(CASES["a write that another view sees"])
    assert (units.axes["a.weight", 0][2:4] == -1).all()
    assert "aten.add_.Tensor" in units.walk.unknown
    assert (units.axes["a.weight", 0][4:] >= 0).all()


def test_a_lost_coupling_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: without the couplings that slices and concatenations make, the cases above must fail."""
    from compressor.axes import rules_move
    from compressor.axes.labels import Value
    from compressor.axes.table import RULES
    from compressor.errors import ModelError

    aten = torch.ops.aten
    assert RULES[aten.cat.default] is rules_move.concatenate
    monkeypatch.setitem(RULES, aten.cat.default, lambda ctx, node, a: Value(ctx.out.sizes))
    program, units = analysed(CASES["sizes of zero"])
    assert (units.axes["out.weight", 1] < 0).all()
    with pytest.raises(ModelError, match="does not fit its inputs"):
        removal_error(program, units, random_keep(units), torch.float64)
