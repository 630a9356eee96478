"""What cannot be captured is refused in the user's words: the line, and what to write instead; no dump of torch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import ModelError
from compressor.program import InputSpec, capture
from compressor.program.normalise import users_line

IMAGE, NODES = InputSpec("x", (None, 3, 8, 8)), InputSpec("x", (None, 5, 3))


class Net(nn.Module):
    def __init__(self, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 4)
        self.line = nn.Linear(3, 4)
        self._forward = forward

    def forward(self, x: Any) -> Any:
        return self._forward(self, x)


class Keyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3)

    def forward(self, image: Tensor, *, mask: Tensor) -> Tensor:
        return self.a(image) * mask


def leaves_early(m: Any, x: Tensor) -> Tensor:
    y = m.out(m.a(x).mean((2, 3)))
    if y.softmax(1).max() > 0.9:
        return y
    return m.out(m.b(m.a(x)).mean((2, 3)))


def iterates(m: Any, x: Tensor) -> Tensor:
    x, n = m.a(x), 0
    while x.abs().mean().item() > 0.1 and n < 5:
        x, n = x * 0.5 + 0.1 * m.b(x), n + 1
    return m.out(x.mean((2, 3)))


def through_numpy(m: Any, x: Tensor) -> Tensor:
    y = m.a(x)
    n = y.detach().numpy()
    return m.out((y * torch.from_numpy((n > n.mean()).astype("float32"))).mean((2, 3)))


def of_a_dict(m: Any, batch: Any) -> Tensor:
    return m.a(batch["image"])


def refusal(model: nn.Module, spec: InputSpec = IMAGE) -> list[str]:
    """The lines of the message."""
    with pytest.raises(ModelError) as told:
        capture(model, [spec])
    lines = str(told.value).split("\n")
    assert len(lines) <= 3
    return lines


@pytest.mark.parametrize(
    ("forward", "line"), [(leaves_early, "if y.softmax(1).max() > 0.9"), (iterates, "while x.abs()")]
)
def test_a_decision_by_values_is_shown_with_its_line(forward: Callable[..., Any], line: str) -> None:
    what, way_out = refusal(Net(forward))
    assert "decides by values that it computed (test_refusals.py" in what and line in what
    assert "torch.where" in way_out and "Guard" not in what


def test_numpy_in_the_middle_is_shown_with_its_line() -> None:
    what, way_out = refusal(Net(through_numpy))
    assert "leaves torch for NumPy (test_refusals.py" in what and "n = y.detach().numpy()" in what
    assert "with torch operators" in way_out


@pytest.mark.parametrize("model", [Net(of_a_dict), Keyword()])
def test_inputs_that_are_no_plain_tensors(model: nn.Module) -> None:
    assert "wrap it in a module whose forward takes one tensor each" in refusal(model)[1]


@pytest.mark.parametrize("as_buffer", [True, False])
@pytest.mark.parametrize("layout", ["sparse_coo", "sparse_csr"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_sparse_adjacency(layout: str, as_buffer: bool) -> None:
    net = Net(lambda m, x: torch.sparse.mm(m.adjacency, m.line(x[0]))[None])
    dense = torch.eye(5)
    sparse = dense.to_sparse() if layout == "sparse_coo" else dense.to_sparse_csr()
    if as_buffer:
        net.register_buffer("adjacency", sparse)
    else:
        net.adjacency = sparse
    what, way_out = refusal(net, NODES)
    assert what.startswith(f"adjacency: a tensor of layout {layout}") and "adjacency.to_dense()" in way_out


def test_a_name_that_every_graph_has() -> None:
    net = Net(lambda m, x: m.out((m.a(x) * m.code).mean((2, 3))))
    net.code = nn.Parameter(torch.rand(1))
    what, way_out = refusal(net)
    assert "a tensor named code" in what and "another name" in way_out


def test_an_error_of_the_networks_own_is_told_as_it_is() -> None:
    def broken(m: Any, x: Tensor) -> Tensor:
        raise RuntimeError("the weights of this layer were never made")

    assert "never made" in refusal(Net(broken))[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_fake_quantisation_is_noted_with_what_to_do() -> None:
    def quantised(m: Any, x: Tensor) -> Tensor:
        return m.b(torch.fake_quantize_per_tensor_affine(m.a(x), 0.1, 0, -128, 127))

    notes = capture(Net(quantised), [IMAGE]).record.notes
    assert any("fake quantisation (1 operators)" in note and "prune the float network" in note for note in notes)


def test_a_frame_whose_source_is_not_at_hand_has_no_code() -> None:
    """What follows it is another frame, or torch's own words, and no line of the user's."""
    trace = (
        '  File "net.py", line 7, in forward\n  File "/x/torch/fx/proxy.py", line 3, in call\n    return 1\nThe error'
    )
    assert users_line(trace) == "net.py:7"
    assert users_line('  File "net.py", line 7, in forward\nThe error above occurred') == "net.py:7"
    assert users_line('  File "net.py", line 7, in forward\n    y = f(x)\n') == "net.py:7 y = f(x)"
