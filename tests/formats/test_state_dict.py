"""State dicts of other programs load whole or not at all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from compressor.errors import ModelError
from compressor.formats.state_dict import find_state_dict, load_into, suggest
from compressor.models import build


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.head = nn.Linear(4, 2)


def weights() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return Net().state_dict()


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{key}": value for key, value in state.items()}


STATE = weights()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3, "optimizer": {"state": {}}},
        lambda s: {"model": {"state_dict": s}},
        lambda s: {"net": s, "acc": 93.4},
        lambda s: {"model_state_dict": s},
        lambda s: {"params_ema": s},
    ],
)
def test_wrappers(wrap: Any) -> None:
    found, note = find_state_dict(wrap(STATE))
    assert found == STATE
    assert note is None


def test_a_choice_is_said() -> None:
    found, note = find_state_dict({"ema": prefixed("x.", STATE), "model": STATE})
    assert found == STATE
    assert note == "weights taken from model; the file also holds ema (--weights ema)"


@pytest.mark.parametrize("content", [{}, [], 3, {"epoch": 3}, {"state_dict": {}}, {3: torch.zeros(1)}, torch.zeros(1)])
def test_no_weights_by_name(content: Any) -> None:
    assert find_state_dict(content) == (None, None)


def test_a_wrapper_inside_itself_ends() -> None:
    loop: dict[str, Any] = {}
    loop["model"] = loop
    assert find_state_dict(loop) == (None, None)


@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "model.", "net.module.", "ema.module."]
)
def test_prefixes(prefix: str) -> None:
    module = Net()
    assert load_into(module, prefixed(prefix, STATE), "file", "net") == []
    assert all(torch.equal(value, STATE[key]) for key, value in module.state_dict().items())


def test_averaged_model_and_inner_compile_names() -> None:
    module = Net()
    load_into(module, {"n_averaged": torch.tensor(3), **prefixed("module.", STATE)}, "file", "net")
    assert torch.equal(module.head.weight, STATE["head.weight"])
    inner = {key.replace("model.", "model._orig_mod."): value for key, value in STATE.items()}
    load_into(Net(), inner, "file", "net")


def test_half_precision_is_said_and_loaded_as_float32() -> None:
    module = Net()
    half = {key: value.half() if value.is_floating_point() else value for key, value in STATE.items()}
    assert load_into(module, half, "file", "net") == ["weights stored as float16 were loaded as float32"]
    assert module.head.weight.dtype is torch.float32
    assert torch.allclose(module.head.weight, STATE["head.weight"], atol=1e-3)


def test_counters_of_batch_norm_may_be_missing() -> None:
    old = {key: value for key, value in STATE.items() if "num_batches" not in key}
    assert load_into(Net(), old, "file", "net") == []


def test_a_tied_weight_may_be_stored_once() -> None:
    module = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    module["b"].weight = module["a"].weight
    state = {key: value.clone() for key, value in module.state_dict().items() if key != "b.weight"}
    state["a.weight"] += 1
    load_into(module, state, "file", "net")
    assert torch.equal(module["b"].weight, state["a.weight"])
    assert module["b"].weight is module["a"].weight


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head.weight": None}, "1 missing: head.weight"),
        ({"extra": torch.zeros(1)}, "1 unexpected: extra"),
        ({"head.bias": torch.zeros(5)}, r"head.bias \(5 in the file, 2 in the architecture\)"),
        ({"head.bias": torch.zeros(2, dtype=torch.int64)}, r"head.bias \(2 int64 in the file"),
        ({"head.bias": torch.zeros(2, dtype=torch.complex64)}, "only ordinary dense tensors"),
        ({"head.bias": torch.tensor([0, float("nan")])}, "head.bias: 1 of 2 values are NaN"),
        ({"head.bias": torch.tensor([0, float("inf")])}, "head.bias: 1 of 2 values are NaN or infinite"),
        ({f"x{i}": torch.zeros(1) for i in range(9)}, "9 unexpected: x0, x1, x2 …"),
    ],
)
def test_what_does_not_fit_is_listed_and_nothing_is_loaded(changes: dict[str, Any], message: str) -> None:
    module = Net()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    state = {key: value for key, value in {**STATE, **changes}.items() if value is not None}
    with pytest.raises(ModelError, match=f"^file: .*{message}") as caught:
        load_into(module, state, "file", "net")
    assert str(caught.value).count("\n") <= 2
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize("arch", ["resnet20", "resnet56", "lenet5", "lenet-300-100"])
def test_the_bundled_architecture_that_fits_is_suggested(arch: str) -> None:
    state = prefixed("module.", build(arch, {}).module.state_dict())
    assert suggest(state) == [arch]
    assert suggest(STATE) == []


def test_the_wrong_architecture_is_corrected() -> None:
    other = build("resnet32", {}).module
    with pytest.raises(ModelError, match=r"12 missing|missing(.|\n)*it fits --arch resnet20"):
        load_into(other, build("resnet20", {}).module.state_dict(), "file", "resnet32")


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3), nn.Linear(6, 2)


def test_masks_of_torch_prune_are_multiplied_in_as_prune_remove_does() -> None:
    pruned, wanted = Two(), Two()
    prune.ln_structured(pruned.a, "weight", 0.5, n=2, dim=0)
    prune.l1_unstructured(pruned.b, "bias", 1)
    state = pruned.state_dict()
    assert {"a.weight_orig", "a.weight_mask", "b.bias_orig"} <= state.keys()
    notes = load_into(wanted, state, "m.pt", "Two")
    assert any("prune.remove" in note for note in notes)
    assert torch.equal(wanted.a.weight, pruned.a.weight) and torch.equal(wanted.b.bias, pruned.b.bias)
    assert (wanted.a.weight == 0).any()


def test_an_architecture_that_prunes_itself_keeps_its_masks() -> None:
    both = [Two(), Two()]
    for net in both:
        prune.ln_structured(net.a, "weight", 0.5, n=2, dim=0)
    load_into(both[1], both[0].state_dict(), "m.pt", "Two")
    assert torch.equal(both[1].a.weight_mask, both[0].a.weight_mask)


def test_a_mask_that_does_not_fit_is_not_guessed_at() -> None:
    state = Two().state_dict()
    state["a.weight_orig"], state["a.weight_mask"] = state.pop("a.weight"), torch.ones(2)
    with pytest.raises(ModelError, match=r"missing: a\.weight"):
        load_into(Two(), state, "m.pt", "Two")
