"""Mixtures of experts in the forms in which networks write them, and some whose experts have to stay."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH, EXPERTS, CHOSEN, INNER = 10, 6, 2, 7


class Mixture(nn.Module):
    """Tokens through a layer, a mixture and a head. `route` gives places, weights and all probabilities; `mix` the sum
    of what was chosen."""

    def __init__(self, route: Callable[..., tuple[Tensor, ...]], mix: Callable[..., Tensor], *, bias: bool) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(5, WIDTH), nn.Linear(WIDTH, 3)
        self.router = nn.Linear(WIDTH, EXPERTS, bias=bias)
        self.up = nn.Parameter(torch.randn(EXPERTS, INNER, WIDTH) / 3)
        self.down = nn.Parameter(torch.randn(EXPERTS, WIDTH, INNER) / 3)
        self.shift = nn.Parameter(torch.randn(EXPERTS, WIDTH) / 3)
        self.correction = nn.Parameter(torch.randn(EXPERTS))
        self.register_buffer("offset", torch.arange(EXPERTS, dtype=torch.float32) / EXPERTS)
        self._route, self._mix = route, mix

    def forward(self, x_NTF: Tensor) -> Tensor:
        tokens = torch.tanh(self.embed(x_NTF)).reshape(-1, WIDTH)
        found = self._mix(self, tokens, *self._route(self, self.router(tokens)))
        out: Tensor = self.head(tokens + found).reshape(x_NTF.shape[0], -1, 3)
        return out


def softmax_first(net: Mixture, logits: Tensor) -> tuple[Tensor, ...]:
    probabilities = F.softmax(logits, -1, dtype=torch.float)
    weights, places = torch.topk(probabilities, CHOSEN, dim=-1)
    return places, (weights / weights.sum(-1, keepdim=True)).to(logits.dtype), probabilities


def topk_first(net: Mixture, logits: Tensor) -> tuple[Tensor, ...]:
    weights, places = torch.topk(logits, CHOSEN, dim=-1)
    return places, F.softmax(weights, -1), logits


def sigmoids(net: Mixture, logits: Tensor) -> tuple[Tensor, ...]:
    """DeepSeek's: chosen by shifted scores, weighted by those themselves."""
    scores = torch.sigmoid(logits)
    places = torch.topk(scores + net.correction, CHOSEN, dim=-1, sorted=False)[1]
    return places, scores.gather(1, places), scores


def by_row(net: Mixture, tokens: Tensor, places: Tensor, weights: Tensor, _: Tensor) -> Tensor:
    """Every token's own copy of the weights, and rows of (token, choice)."""
    rows, flat = tokens.repeat_interleave(CHOSEN, 0), places.reshape(-1)
    inner = F.silu(torch.bmm(net.up[flat], rows.unsqueeze(-1)).squeeze(-1))
    answers = torch.bmm(net.down[flat], inner.unsqueeze(-1)).squeeze(-1) + net.shift.index_select(0, flat)
    return (answers * weights.reshape(-1, 1)).view(-1, CHOSEN, WIDTH).sum(1)


def by_embedding(net: Mixture, tokens: Tensor, places: Tensor, weights: Tensor, _: Tensor) -> Tensor:
    """Experts that are a vector each, looked up."""
    return (F.embedding(places, net.shift) * weights.unsqueeze(-1)).sum(1)


def _all_experts(net: Mixture, tokens: Tensor, gates: Tensor) -> Tensor:
    inner = F.silu(torch.einsum("nd,eid->nei", tokens, net.up))
    return (gates.unsqueeze(-1) * torch.einsum("nei,edi->ned", inner, net.down)).sum(1)


def by_scatter(net: Mixture, tokens: Tensor, places: Tensor, weights: Tensor, scores: Tensor) -> Tensor:
    """All experts for every token, most of them times 0."""
    return _all_experts(net, tokens, torch.zeros_like(scores).scatter(1, places, weights))


def by_one_hot(net: Mixture, tokens: Tensor, places: Tensor, weights: Tensor, scores: Tensor) -> Tensor:
    chosen = F.one_hot(places, EXPERTS).to(weights.dtype)
    return _all_experts(net, tokens, (chosen * weights.unsqueeze(-1)).sum(1))


def by_number(net: Mixture, tokens: Tensor, places: Tensor, weights: Tensor, scores: Tensor) -> Tensor:
    """The number of an expert is a value of its own."""
    return by_embedding(net, tokens, places, weights * places, scores)


def by_shares(net: Mixture, tokens: Tensor, places: Tensor, weights: Tensor, scores: Tensor) -> Tensor:
    """The mean share of all experts is a value of its own."""
    return by_embedding(net, tokens, places, weights, scores) + scores.mean(-1, keepdim=True)


def in_groups(net: Mixture, logits: Tensor) -> tuple[Tensor, ...]:
    """The better half of two halves of the experts, then the best of it."""
    scores = torch.sigmoid(logits)
    halves = scores.view(-1, 2, EXPERTS // 2).topk(2, dim=-1)[0].sum(-1)
    best = torch.zeros_like(halves).scatter(1, halves.topk(1, dim=-1)[1], 1.0)
    allowed = best.unsqueeze(-1).expand(-1, 2, EXPERTS // 2).reshape(-1, EXPERTS)
    places = torch.topk(scores * allowed, CHOSEN, dim=-1)[1]
    return places, scores.gather(1, places), scores


ROUTES = {"softmax": softmax_first, "topk": topk_first, "sigmoid": sigmoids}
MIXES = {"row": by_row, "embedding": by_embedding, "scatter": by_scatter, "one_hot": by_one_hot}


def mixture(route: Callable[..., tuple[Tensor, ...]], mix: Callable[..., Tensor], *, bias: bool = False) -> Mixture:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return Mixture(route, mix, bias=bias).eval()
