"""Small networks whose evaluation depends on more than their input, by what has to become of them in a capture.

Each is the forward of `Net`, written as a function of the network and its input.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Forward = Callable[[Any, Tensor], Any]


class Net(nn.Module):
    """A convolution and a linear layer, and whatever else a forward needs."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.function = forward
        self.conv, self.norm, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Linear(8, 4)
        self.plain_norm = nn.BatchNorm2d(8, track_running_stats=False)
        self.recurrent = nn.LSTM(8, 8, 2, dropout=0.5, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.3, batch_first=True)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("average", torch.zeros(4))
        self.calls, self.log, self.table = 0, [], {}
        self.cache: Tensor | None = None
        self.generator, self.rng = torch.Generator(), np.random.default_rng(0)
        assert self.norm.running_mean is not None and self.norm.running_var is not None
        self.norm.running_mean.normal_(0, 0.3)
        self.norm.running_var.uniform_(0.5, 2)

    def maps(self, x: Tensor) -> Tensor:
        return self.conv(x).relu()

    def logits(self, x: Tensor) -> Tensor:
        return self.fc(self.maps(x).mean((2, 3)))

    def tokens(self, x: Tensor) -> Tensor:
        return self.maps(x).flatten(2).transpose(1, 2)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def write(target: Tensor, value: Any) -> Tensor:
    """`target[...] = value` as an expression."""
    target.copy_(value) if isinstance(value, Tensor) else target.fill_(value)
    return target


def keep(net: Net, **values: Any) -> None:
    for name, value in values.items():
        setattr(net, name, value)


def batch_norm(net: Net, x: Tensor, training: bool = True) -> Tensor:
    norm = net.norm
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, training)


def in_training(module: nn.Module) -> nn.Module:
    module.training = True
    return module


def clamped(net: Net, x: Tensor) -> Tensor:
    with torch.no_grad():
        net.fc.weight.clamp_(-0.2, 0.2)
    return net.logits(x)


def in_pieces(net: Net, x: Tensor) -> Tensor:
    if x.shape[0] > 8:
        return torch.cat([net.logits(x[:8]), net.logits(x[8:])])
    return net.logits(x)


def even_only(net: Net, x: Tensor) -> Tensor:
    assert x.shape[0] % 2 == 0, "pairs"
    return net.logits(x)


def one_image_at_a_time(net: Net, x: Tensor) -> Tensor:
    if x.shape[0] != 1:
        raise ValueError("one image at a time")
    return net.logits(x)


def cached_in_a_dictionary(net: Net, x: Tensor) -> Tensor:
    return net.logits(x) + net.table.setdefault(x.shape[-1], torch.linspace(0, 1, 4))


def cached_in_an_attribute(net: Net, x: Tensor) -> Tensor:
    if net.cache is None or net.cache.shape[0] != x.shape[0]:
        net.cache = torch.linspace(0, 1, 4).expand(x.shape[0], 4)
    return net.logits(x) + net.cache


def drawn_and_not_used(net: Net, x: Tensor) -> Tensor:
    chance = random.uniform(0, 1)
    return net.logits(x) * (2 if net.training and chance < 0.5 else 1)


ANY_BATCH: dict[str, Forward] = {
    "plain": lambda net, x: net.logits(x),
    "the size in arithmetic": lambda net, x: net.logits(x) / x.shape[0],
    "a range of the size": lambda net, x: net.logits(x) * torch.arange(x.shape[0])[:, None],
    "the size as a tensor": lambda net, x: net.logits(x) * torch.tensor(x.shape[0]),
    "mean of the batch removed": lambda net, x: (y := net.logits(x)) - y.mean(0),
    "one half against the other": lambda net, x: (n := x.shape[0] // 2, y := net.logits(x), y[:n] - y[n : 2 * n])[2],
    "the first two": lambda net, x: net.logits(x)[:2],
    "sorted over the batch": lambda net, x: net.logits(x).sort(0)[0],
    "in pieces above 8": in_pieces,
    "numbers beside tensors": lambda net, x: {"y": net.logits(x), "n": x.shape[0], "seven": 7, "no": None, "text": "a"},
    "not a number": lambda net, x: net.logits(x).log(),
    "infinite": lambda net, x: net.logits(x).relu().reciprocal(),
    "a cache in an attribute": cached_in_an_attribute,
    "a cache in a dictionary": cached_in_a_dictionary,
    "a log that nobody reads": lambda net, x: (net.log.append(1), net.logits(x))[1],
    "its input written": lambda net, x: net.logits(x.mul_(2)),
    "its input written through a view": lambda net, x: (v := x.view(x.shape[0], -1), v.sub_(1), net.logits(x))[2],
    "attention and recurrence": lambda net, x: net.fc(
        net.attention(t := net.tokens(x), t, t)[0].mean(1) + net.recurrent(t)[0].mean(1)
    ),
    "random numbers that nobody reads": lambda net, x: (torch.randn(3), net.logits(x))[1],
}
"""Captured for any batch, without a note."""

ONE_BATCH: dict[str, Forward] = {
    "len": lambda net, x: net.logits(x) / len(x),
    "int": lambda net, x: net.logits(x) * int(x.shape[0]),
    "float": lambda net, x: net.logits(x) * float(x.size(0)),
    "root of the size": lambda net, x: net.logits(x) / x.shape[0] ** 0.5 * len(x),
    "range": lambda net, x: torch.cat([net.logits(x[i : i + 1]) for i in range(x.shape[0])]),
    "a loop over samples": lambda net, x: torch.stack([net.logits(image[None])[0] for image in x]),
    "a list of samples": lambda net, x: [net.logits(image[None]) for image in x],
    "a dictionary of samples": lambda net, x: {f"sample {i}": net.logits(x[i : i + 1]) for i in range(len(x))},
    "chunks": lambda net, x: torch.cat([net.logits(part) for part in x.chunk(2)]),
    "a split": lambda net, x: torch.cat([net.logits(part) for part in x.split(1)]),
    "a split by four": lambda net, x: torch.cat([net.logits(part) * i for i, part in enumerate(x.split(4), 1)]),
    "ghost batch norm": lambda net, x: net.fc(
        torch.cat([net.plain_norm(part) for part in net.maps(x).split(4)]).mean((2, 3))
    ),
    "weights in a list": lambda net, x: net.logits(x) * torch.tensor([1.0 / (i + 1) for i in range(len(x))])[:, None],
    "NumPy": lambda net, x: net.logits(x) + torch.from_numpy(np.ones((x.shape[0], 4), dtype="float32") * x.shape[0]),
    "more than one": lambda net, x: net.fc((net.norm(net.maps(x)) if x.shape[0] > 1 else net.maps(x)).mean((2, 3))),
    "exactly three": lambda net, x: net.logits(x) * (2 if x.shape[0] == 3 else 1),
    "exactly five": lambda net, x: net.logits(x) * (2 if x.shape[0] == 5 else 1),
    "more than eight": lambda net, x: net.logits(x) * (2 if x.shape[0] > 8 else 1),
    "more than 200": lambda net, x: net.logits(x) * (2 if x.shape[0] > 200 else 1),
    "odd": lambda net, x: net.logits(x) * (2 if x.shape[0] % 2 else 1),
    "one output more": lambda net, x: (net.logits(x), net.maps(x)) if x.shape[0] == 1 else net.logits(x),
    "an output that is missing": lambda net, x: {"a": net.logits(x), "b": None if len(x) == 1 else x.sum()},
    "one image at a time": one_image_at_a_time,
    "a view for one": lambda net, x: net.fc(net.maps(x).mean((2, 3)).view(1, 8)),
}
"""Right for one sample only: captured at batch 1, which a note says."""

REFUSED: dict[str, tuple[Forward, str]] = {
    "a counter that is used": (lambda net, x: net.logits(x) * net.steps.add_(1), "it writes steps"),
    "an average that is used": (
        lambda net, x: (y := net.logits(x)) - net.average.mul_(0.9).add_(0.1 * y.mean(0)), "it writes average",
    ),
    "an average in a new tensor": (
        lambda net, x: (y := net.logits(x), keep(net, average=0.9 * net.average + y.mean(0)), y - net.average)[2],
        "it writes average",
    ),
    "calls that are counted": (
        lambda net, x: (keep(net, calls=net.calls + 1), net.logits(x) * (2 if net.calls > 1 else 1))[1],
        "it writes calls",
    ),
    "a log that is read": (lambda net, x: (net.log.append(1), net.logits(x) * len(net.log))[1], "it writes log"),
    "running statistics, written and read": (
        lambda net, x: net.fc(net.norm(batch_norm(net, net.maps(x))).mean((2, 3))), "it writes norm.running_mean",
    ),
    "a weight that shrinks": (
        lambda net, x: (net.logits(x), net.fc.weight.detach().mul_(0.5))[0], "it writes fc.weight",
    ),
    "Python's random": (lambda net, x: net.logits(x) * (2 if random.random() < 0.5 else 1), "of Python or NumPy"),
    "NumPy's random": (lambda net, x: net.logits(x) * float(np.random.rand()), "of Python or NumPy"),
    "a generator of NumPy": (lambda net, x: net.logits(x) * net.rng.random(), "another result when it is called again"),
    "a generator of torch": (
        lambda net, x: net.logits(x + torch.randn(x.shape, generator=net.generator)), "an object of type Generator",
    ),
    "a branch on values": (lambda net, x: net.logits(x) * (2 if x.sum() > 0 else 1), "cannot be exported"),
    "a number of values": (lambda net, x: net.logits(x) * float(x.max()), "cannot be exported"),
    "a branch on a random number": (lambda net, x: net.logits(x) * (2 if torch.rand(1) < 0.5 else 1), "cannot be exp"),
    "through NumPy": (lambda net, x: net.logits(x) * torch.from_numpy(x.numpy().mean((1, 2, 3)))[:, None], "cannot be"),
    "two samples only": (lambda net, x: net.fc(net.maps(x).mean((2, 3)).view(2, 8)), "cannot be exported"),
    "only without gradients": (
        lambda net, x: net.logits(x) * (2 if torch.is_grad_enabled() else 1),
        "is not what its export computes: at batch 1",
    ),
    "never": (lambda net, x: net.logits(x[:, :2]), "the model does not run on that: RuntimeError"),
}  # fmt: skip
"""What no graph can do, and what the error says of it."""

NOTED: dict[str, tuple[Forward, str]] = {
    "a counter": (lambda net, x: (net.steps.add_(1), net.logits(x))[1], "steps: written in evaluation"),
    "a counter in Python": (lambda net, x: (keep(net, calls=net.calls + 1), net.logits(x))[1], "calls: changes with"),
    "an average": (
        lambda net, x: (y := net.logits(x), net.average.mul_(0.9).add_(y.mean(0)))[0], "average: written in evaluation",
    ),
    "a buffer for one call": (
        lambda net, x: (y := net.logits(x), write(net.average[1:3], y.mean(0)[1:3]), y + net.average)[2],
        "average: written in evaluation",
    ),
    "a buffer through a view": (
        lambda net, x: (v := net.average.view(2, 2), v.fill_(3.0), net.logits(x) + net.average)[2],
        "average: written in evaluation",
    ),
    "a weight held in bounds": (clamped, "fc.weight: written in evaluation"),
    "batch norm in training": (
        lambda net, x: net.fc(in_training(net.norm)(net.maps(x)).mean((2, 3))), "norm: normalises with the statistics",
    ),
    "batch norm told to": (
        lambda net, x: net.fc(batch_norm(net, net.maps(x)).mean((2, 3))), "norm: normalises with the statistics",
    ),
    "batch norm without statistics": (
        lambda net, x: net.fc(net.plain_norm(net.maps(x)).mean((2, 3))), "plain_norm: normalises with the statistics",
    ),
    "batch norm over one value": (
        lambda net, x: net.fc(in_training(net.norm)(net.maps(x).mean((2, 3), keepdim=True)).flatten(1)),
        "does not run at batch 1: ValueError: Expected more than 1 value per channel",
    ),
    "pairs that are demanded": (even_only, "does not run at batch 1, 3: AssertionError: pairs"),
    "noise": (lambda net, x: net.logits(x + torch.randn_like(x)), "draws random numbers in evaluation"),
    "noise after noise that nobody reads": (
        lambda net, x: (torch.randn(7), net.logits(x + torch.randn_like(x)))[1], "draws random numbers in evaluation",
    ),
    "stochastic depth": (
        lambda net, x: net.fc((net.maps(x) * (torch.rand(x.shape[0], 1, 1, 1) < 0.8)).mean((2, 3))),
        "draws random numbers",
    ),
    "stochastic depth in place": (
        lambda net, x: net.fc((net.maps(x) * x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(0.8)).mean((2, 3))),
        "draws random numbers",
    ),
    "random numbers of Python": (drawn_and_not_used, "draws random numbers of Python or NumPy"),
}  # fmt: skip
"""Captured for any batch, with a note."""

DROPPED: dict[str, Forward] = {
    "dropout": lambda net, x: net.fc(F.dropout(net.maps(x).mean((2, 3)), 0.5)),
    "dropout of channels": lambda net, x: net.fc(F.dropout2d(net.maps(x), 0.5).mean((2, 3))),
    "dropout in place": lambda net, x: (y := net.maps(x), F.dropout(y, 0.5, True, True), net.fc(y.mean((2, 3))))[2],
    "alpha dropout": lambda net, x: net.fc(F.alpha_dropout(net.maps(x).mean((2, 3)), 0.5, True)),
    "a random slope": lambda net, x: net.fc(F.rrelu(net.conv(x), training=True).mean((2, 3))),
    "in attention": lambda net, x: net.fc(
        F.scaled_dot_product_attention(t := net.tokens(x), t, t, dropout_p=0.4).mean(1)
    ),
    "in torch's attention": lambda net, x: net.fc(in_training(net.attention)(t := net.tokens(x), t, t)[0].mean(1)),
    "between recurrent layers": lambda net, x: net.fc(in_training(net.recurrent)(net.tokens(x))[0].mean(1)),
}
"""On in evaluation: off in the program's, which a note says."""
