"""What operators multiply: by hand, by torch's own counter, and that none is forgotten silently."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry

from benchmarks.macs import differences, torch_counts
from compressor.cost import Operator, Product, count_macs, macs_of_layers, multiplies, uncounted_operators
from compressor.cost.products import RULES, MacRule, sounds_like_a_product
from compressor.program import InputSpec, Program, capture
from compressor.program.families import operator_name
from tests.cost.operators import CASES, Calls


@cache
def program_of(name: str) -> Program:
    return CASES[name].program()


@pytest.mark.parametrize("name", CASES)
def test_every_operator_is_counted_as_by_hand_and_as_torch_counts_it(name: str) -> None:
    case, program = CASES[name], program_of(name)
    assert count_macs(program) == sum(macs_of_layers(program).values()) == case.macs
    theirs = sum(torch_counts(program, 1).values())
    assert theirs == (case.macs if case.torch is None else case.torch)
    assert (differences(program, program.sampled_batch) == {}) == (case.torch is None)
    assert uncounted_operators(program) == ()


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.macs and case.torch is None])
def test_twin_a_rule_that_forgets_an_axis_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = program_of(name)
    right = count_macs(program)

    def forgetful(rule: MacRule) -> MacRule:
        return lambda op: [replace(product, axes=product.axes[:-1]) for product in rule(op)]

    for target in {node.target for node in program.module.graph.nodes if node.target in RULES}:
        monkeypatch.setitem(RULES, target, forgetful(RULES[target]))
    assert count_macs(program) < right
    assert differences(program, program.sampled_batch) != {}


def test_every_rule_has_a_case() -> None:
    seen = {node.target for name in CASES for node in program_of(name).module.graph.nodes}
    names = {rule.__name__ for target, rule in RULES.items() if target in seen}
    assert {rule.__name__ for rule in RULES.values()} - names == set()


OTHERS = ("_scaled_mm", "corrcoef", "cov", "linalg_matrix_power", "linalg_multi_dot", "linalg_pinv", "_grouped_mm",
          "chain_matmul", "matrix_exp", "fft_rfft2", "stft", "cdist", "linalg_solve", "_native_multi_head_attention",
          "_transformer_encoder_layer_fwd", "quantized_lstm", "_thnn_fused_gru_cell", "linalg_vecdot")  # fmt: skip
"""Operators of torch's without a rule that multiply and sum: the first six are those of its operator tests that its
counter counts."""

NO_PRODUCTS = ("linalg_norm", "linalg_vector_norm", "linalg_cross", "fft_fftfreq", "fft_fftshift", "batch_norm", "mul",
               "upsample_bilinear2d", "upsample_trilinear3d", "grid_sampler", "embedding", "cumsum", "outer", "addr",
               "max_pool2d", "lerp", "addcmul", "kron", "softmax", "layer_norm", "im2col", "matrix_H")  # fmt: skip


def _counted_by_torch() -> Iterator[str]:
    for packet in flop_registry:
        name = getattr(packet, "_qualified_op_name", "")
        if name.startswith("aten::") and "backward" not in name:
            yield name.removeprefix("aten::")


def test_what_torch_counts_is_counted_or_named() -> None:
    counted = {operator_name(target) for target in RULES}
    assert set(_counted_by_torch()) and all(
        name in counted or sounds_like_a_product(name) for name in _counted_by_torch()
    )


@pytest.mark.parametrize("name", OTHERS)
def test_what_multiplies_without_a_rule_is_named(name: str) -> None:
    assert hasattr(torch.ops.aten, name)
    assert name not in {operator_name(target) for target in RULES}
    assert sounds_like_a_product(name)


@pytest.mark.parametrize("name", NO_PRODUCTS)
def test_what_multiplies_by_element_or_not_at_all_is_not_named(name: str) -> None:
    assert hasattr(torch.ops.aten, name)
    assert not sounds_like_a_product(name)


def test_a_transform_is_named_with_how_often_it_is_there() -> None:
    class Twice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.rfft(x).abs() + torch.fft.rfft(x + 1).abs()

    program = capture(Twice(), [InputSpec("x", (None, 8))])
    assert uncounted_operators(program) == ("aten.fft_rfft.default (2x)",)


@pytest.fixture
def mixing() -> Iterator[Program]:
    """A network with an operator that only its author knows, which mixes channels, and one that makes integers."""
    with torch.library._scoped_library("counted_here", "DEF") as library:
        library.define("mix(Tensor x, Tensor weight) -> Tensor")
        library.impl("mix", lambda x, weight: x @ weight, "CompositeExplicitAutograd")
        library.define("rank(Tensor x) -> Tensor")
        library.impl("rank", lambda x: x.argsort(1), "CompositeExplicitAutograd")
        ops = torch.ops.counted_here

        def call(m: nn.Module, x: Tensor) -> Tensor:
            return ops.mix.default(x, m.w) + ops.rank.default(x)

        yield capture(Calls(call, w=(6, 6)), [InputSpec("x", (None, 6))])


def test_an_operator_from_elsewhere_is_named_until_somebody_says_what_it_multiplies(
    mixing: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (count_macs(mixing), uncounted_operators(mixing)) == (0, ("counted_here.mix.default",))
    target = torch.ops.counted_here.mix.default

    def rule(op: Operator) -> Sequence[Product]:
        return [Product((op["x"], op["weight"]), (*op.out, op.axes("x")[-1]))]

    monkeypatch.setitem(RULES, target, rule)  # taken back at the end
    assert (count_macs(mixing), uncounted_operators(mixing)) == (36, ())


def test_the_rule_in_the_documentation_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    program = capture(Calls(lambda m, x: torch.cdist(x, m.w), w=(5, 3)), [InputSpec("x", (None, 4, 3))])
    assert (count_macs(program), uncounted_operators(program)) == (0, ("aten.cdist.default",))
    page = (Path(__file__).parents[2] / "docs" / "axes.md").read_text(encoding="utf-8")
    (block,) = (text for text in re.findall(r"```python\n(.*?)```", page, re.S) if "register_mac_rule" in text)
    monkeypatch.setitem(RULES, torch.ops.aten.cdist.default, None)
    monkeypatch.delitem(RULES, torch.ops.aten.cdist.default)  # both undone at the end, with what the block enters
    exec(block, {"__name__": "rules"})
    assert (count_macs(program), uncounted_operators(program)) == (4 * 5 * 3, ())


def test_a_second_rule_is_an_error() -> None:
    with pytest.raises(ValueError, match="already has a rule of what it multiplies: linear"):
        multiplies(torch.ops.aten.linear.default)(lambda op: [])
