"""A graph may call what is known, with arguments that no kernel trusts blindly: no signal, no hang, no gigabytes.

Cases run in a process of their own; a signal that ends it is an outcome, so one crash does not hide the next.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bad import hostile_calls
from tests.bad.hostile_calls import line

ROOT = Path(__file__).parents[2]
BATCH = 20
"""Cases of one example: the process has a pipe to write and to read for each."""
EXAMPLES = settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "default")).max_examples
FEW = 3
"""Examples of an ordinary run; `make fuzz` runs as many as its profile says."""

Attack = Callable[[list[Any]], list[str]]
X = {"node": "x"}


@pytest.fixture(scope="module")
def attack() -> Iterator[Attack]:
    """Runs cases, each a number or the nodes of a graph; gives what became of each."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.bad.hostile_calls"], cwd=ROOT, text=True, env=environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def run(cases: list[Any]) -> list[str]:
            stdin.write(json.dumps(cases) + "\n")
            stdin.flush()
            return json.loads(stdout.readline())

        yield run
        stdin.close()


def calls(target: str, *args: Any, **kwargs: Any) -> list[dict[str, Any]]:
    """A graph that calls one operator on tensors of `hostile_calls`, and takes the first part of its result."""
    schema = getattr(getattr(torch.ops.aten, target.split(".")[1]), target.split(".")[2])._schema
    nodes = [line("y", target, list(args), kwargs)]
    if len(schema.returns) > 1 or "List" in str(schema.returns[0].type):
        nodes.append(line("part", "operator.getitem", [{"node": "y"}, 0]))
    return graph(*nodes)


def graph(*nodes: dict[str, Any]) -> list[dict[str, Any]]:
    named = {node["name"] for node in nodes}
    read = dict.fromkeys(name for node in nodes for name in hostile_calls.read(node["args"]) if name not in named)
    held = [line(name, name, op="get_attr") for name in read if name != "x"]
    ending = line("output", "output", [{"node": nodes[-1]["name"]}], op="output")
    return [line("x", "x", op="placeholder"), *held, *nodes, ending]


def filled(*sizes: int) -> dict[str, Any]:
    return line("large", "aten.full.default", [list(sizes), 1.0])


LARGE = {"node": "large"}
FOUR, TALL, IMAGE, SQUARE = ({"node": name} for name in ("four", "tall", "image", "square"))
GATES, GATE, STEPS, LOW, LOW32 = ({"node": name} for name in ("gates", "gate", "steps", "low", "low32"))
ONE, STATE = ({"node": name} for name in ("one", "state"))
LAYER = (True, 1, 0.0, False, False, False)
STRETCHED = line("large", "aten.expand.default", [{"node": "one"}, [2**33]])

FORGED: dict[str, list[dict[str, Any]]] = {
    "norms of another shape": calls("aten._weight_norm_interface.default", TALL, FOUR, 0),
    "norms of another shape, composed": calls("aten._weight_norm.default", TALL, FOUR, 0),
    "norms along no dimension": calls("aten._weight_norm.default", SQUARE, FOUR, 7),
    "statistics of nothing": calls("aten.batch_norm_update_stats.default", IMAGE, None, None, 0.1),
    "a transform of no dimension": calls("aten.fft_ihfftn.default", FOUR, [], None),
    "labels beyond the classes": calls("aten.ctc_loss.IntList", STEPS, LOW, [5, 5], [2**31, 2]),
    "a picture of no size": calls("aten._upsample_bilinear2d_aa.default", IMAGE, [0, 2**31], False),
    "a picture of no size, by factors": calls("aten._upsample_bilinear2d_aa.vec", IMAGE, None, False, [1e-9, 1e30]),
    "steps of nothing": calls("aten.range.step", 0, 1, 0),
    "the lowest by minus one": calls("aten.div.Tensor_mode", LOW, {"node": "minus"}, rounding_mode="trunc"),
    "the lowest by minus one, a number": calls("aten.div.Scalar_mode", LOW, -1, rounding_mode="trunc"),
    "the lowest by minus one, in place": calls("aten.div_.Tensor_mode", LOW, {"node": "minus"}, rounding_mode="trunc"),
    "the lowest by minus one, by its other name": calls("aten.divide.Scalar_mode", LOW, -1, rounding_mode="trunc"),
    "the lowest of 32 bits": calls("aten.div.Tensor_mode", LOW32, LOW32, rounding_mode="trunc"),
    "more channels than weights": graph(
        line("c", "aten.reshape.default", [TALL, [4, 4096]]),
        line("y", "aten._native_batch_norm_legit_no_training.default", [{"node": "c"}, *[ONE] * 4, 0.1, 1e-5]),
        line("part", "operator.getitem", [{"node": "y"}, 0]),
    ),
    "more channels than statistics": calls(
        "aten.native_batch_norm.default", IMAGE, None, None, ONE, ONE, False, 0.1, 1e-5
    ),
    "more channels than a group norm's weights": calls(
        "aten.native_group_norm.default", IMAGE, FOUR, FOUR, 2, 3, 36, 3, 1e-5
    ),
    "a group norm of other sizes": calls("aten.native_group_norm.default", IMAGE, None, None, 2**20, 3, 36, 3, 1e-5),
    "stretched and read": graph(STRETCHED, line("y", "aten.sum.default", [LARGE])),
    "stretched and returned": graph(STRETCHED),
    "stretched and copied": graph(STRETCHED, line("y", "aten.reshape.default", [LARGE, [2**16, 2**17]])),
    "powers up to": calls("aten.logspace.default", 0, 1, 2**31),
    "a function that counts": calls("aten.mvlgamma.default", FOUR, 2**31),
    "another": calls("aten.polygamma.default", 2**31, FOUR),
    "a polynomial": calls("aten.special_hermite_polynomial_h.n_scalar", FOUR, 2**40),
    "a window": calls("aten.hann_window.default", 2**33),
    "all pairs": calls("aten.combinations.default", {"node": "long"}, 4),
    "a layer of many steps": graph(
        filled(2**22, 2, 4),
        line("y", "aten.lstm.input", [LARGE, [STATE, STATE], [GATES, GATES, GATE, GATE], *LAYER]),
        line("part", "operator.getitem", [{"node": "y"}, 0]),
    ),
    "a layer of many rows": graph(
        filled(2**22, 2, 4),
        line("y", "aten.rnn_tanh.input", [LARGE, STATE, [SQUARE, SQUARE, FOUR, FOUR], *LAYER]),
        line("part", "operator.getitem", [{"node": "y"}, 0]),
    ),
    "differences of differences": calls("aten.diff.default", FOUR, 2**31),
    "a power of a matrix": calls("aten.matrix_power.default", SQUARE, 2**40),
    "a long dimension": graph(filled(2**29), line("y", "aten.relu.default", [LARGE])),
    "a product of large ones": graph(filled(2**14, 2**14), line("y", "aten.mm.default", [LARGE, LARGE])),
    "a whole square": graph(filled(2**17), line("y", "aten.outer.default", [LARGE, LARGE])),
    "letters of their own": calls("aten.einsum.default", "a,b,c->abc", [{"node": "long"}] * 3),
    "scores of attention": graph(
        filled(1, 1, 2**20, 4),
        line("y", "aten.scaled_dot_product_attention.default", [LARGE, LARGE, LARGE]),
    ),
    "a decomposition": graph(filled(2**13, 2**13), line("y", "aten.linalg_inv.default", [LARGE])),
    "many at once": graph(
        *(line(f"v{i}", "aten.full.default", [[2**24], i]) for i in range(64)),
        line("y", "aten.stack.default", [[{"node": f"v{i}"} for i in range(64)]]),
    ),
    "a copy on another device": calls("aten.to.device", FOUR, {"device": "meta"}, {"dtype": "float32"}),
    "numbers that stand for others": calls("aten.to.dtype", FOUR, {"dtype": "quint8"}),
    "a layout of its own": calls("aten.zeros.default", [4], layout={"layout": "sparse_coo"}),
}  # fmt: skip


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_call_is_refused_before_it_runs(attack: Attack, what: str) -> None:
    (found,) = attack([FORGED[what]])
    assert found.startswith("refused: "), found
    assert "cannot be run on these values" not in found


HARMLESS: dict[str, list[dict[str, Any]]] = {
    "norms that fit": calls("aten._weight_norm.default", TALL, {"node": "column"}, 1),
    "division by a number": calls("aten.div.Tensor_mode", LOW, 2, rounding_mode="trunc"),
    "rounding down": calls("aten.div.Tensor_mode", LOW, {"node": "minus"}, rounding_mode="floor"),
    "an index beyond its table": calls("aten.index_select.default", FOUR, 0, {"node": "minus"}),
    "nothing to add up": calls("aten.sum.default", {"node": "none"}),
    "nothing to lay flat": calls("aten.ravel.default", {"node": "none"}),
    "a product with a number": calls("aten.inner.default", {"node": "number"}, FOUR),
    "an angle to a number": calls("aten.cosine_similarity.default", {"node": "number"}, SQUARE),
    "no index at all": calls("aten.index.Tensor", SQUARE, [None]),
    "a root that there is not": calls("aten.linalg_cholesky.default", {"node": "square"}),
    "a layer of few steps": calls("aten.rnn_tanh.input", STEPS, STATE, [SQUARE, SQUARE, FOUR, FOUR], *LAYER),
}  # fmt: skip

FAULTS = {"an index beyond its table", "no index at all", "a root that there is not"}


@pytest.mark.parametrize("what", HARMLESS)
def test_a_call_that_fits_is_run_or_told_as_a_fault_of_the_network(attack: Attack, what: str) -> None:
    (found,) = attack([HARMLESS[what]])
    expected = "refused: the network cannot be run on these values" if what in FAULTS else "ran"
    assert found.startswith(expected), found


@given(first=st.integers(0, 2**40))
@settings(max_examples=EXAMPLES if EXAMPLES > 100 else FEW)
def test_no_call_of_what_is_allowed_ends_in_a_signal_or_a_time_out(attack: Attack, first: int) -> None:
    numbers = list(range(first, first + BATCH))
    found = dict(zip(numbers, attack(numbers), strict=True))
    assert {number: told for number, told in found.items() if not told.startswith(("refused: ", "ran"))} == {}


def test_twin_a_signal_is_an_outcome_and_the_next_case_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def one(case: list[Any]) -> str:
        if case[0]["name"] == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        return "ran"

    monkeypatch.setattr(hostile_calls, "outcome", one)
    crash, quiet = [line("crash", "x")], [line("quiet", "x")]
    assert hostile_calls.outcomes([quiet, crash, crash, quiet]) == ["ran", *["signal: SIGKILL"] * 2, "ran"]


def test_twin_a_case_that_does_not_end_is_a_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_end(case: list[Any]) -> str:
        while True:
            pass

    monkeypatch.setattr(hostile_calls, "outcome", without_end)
    monkeypatch.setattr(hostile_calls, "CPU_S", 0.05)
    assert hostile_calls.outcomes([[]]) == ["time-out"]


def test_twin_a_case_that_takes_gigabytes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostile_calls, "from_bytes", lambda content: torch.empty(2**40))
    assert hostile_calls.outcomes([FORGED["a window"]]) == ["memory"]


def test_twin_what_is_no_error_of_ours_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostile_calls, "from_bytes", lambda content: [][1])
    (found,) = hostile_calls.outcomes([FORGED["a window"]])
    assert found.startswith("bug: IndexError")
