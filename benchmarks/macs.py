"""MACs over the zoo against torch's own counter: `python -m benchmarks.macs [--only GLOB] [--out macs.json]`.

Every network of the coverage table is counted by the tool and by torch.utils.flop_counter on tensors without data,
operator by operator, at the batch that shapes are taken at and in all at batch 1. Then random units are removed, and
what the budget said that this costs is compared with both counts of what is left. A network that the file already
holds is skipped.
"""

from __future__ import annotations

import argparse
import fnmatch
import gc
import json
import time
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.fx import Node
from torch.fx.node import map_arg
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.coverage import jobs
from benchmarks.zoo import random_keep
from compressor.axes import find_units
from compressor.compaction.slicing import slice_program
from compressor.cost import count_macs, dense_cost, mac_terms, uncounted_operators
from compressor.models import build
from compressor.program import InputSpec, Program, capture
from compressor.sparsity import Budget

OUT = Path(__file__).parent / "data" / "macs.json"
_META = torch.device("meta")


@dataclass
class Comparison:
    """MACs of one network at batch 1, ours and those of torch's counter, and by operator where they differ.

    `cut` are the MACs that the budget says are left without random units, what is counted then, and torch's count.
    """

    name: str
    side: int = 0
    ours: int = 0
    torch: float = 0.0
    differing: dict[str, tuple[float, float]] = field(default_factory=dict)
    cut: tuple[float, int, float] = (0.0, 0, 0.0)
    cut_differing: dict[str, tuple[float, float]] = field(default_factory=dict)
    n_operators: int = 0
    uncounted: tuple[str, ...] = ()
    ours_s: float = 0.0
    torch_s: float = 0.0
    error: str = ""

    @property
    def agrees(self) -> bool:
        """Whether every count is torch's own, or differs by what differs operator by operator."""
        gap = sum(ours - theirs for ours, theirs in self.differing.values())
        cut_gap = sum(ours - theirs for ours, theirs in self.cut_differing.values())
        planned, left, left_torch = self.cut
        return not self.error and self.ours == self.torch + gap and planned == left == left_torch + cut_gap


def torch_counts(program: Program, batch: int) -> dict[str, float]:
    """Multiply-adds of every operator on a batch, by torch.utils.flop_counter on meta tensors; by node name."""
    tensors = {name: torch.empty_like(tensor, device=_META) for name, tensor in program.module.tensors().items()}
    given = iter(torch.empty(spec.concrete(batch), dtype=spec.torch_dtype, device=_META) for spec in program.inputs)
    values: dict[str, Any] = {}
    found: dict[str, float] = {}
    with torch.no_grad(), torch.device(_META), FlopCounterMode(display=False) as counter:
        before = 0
        for node in program.module.graph.nodes:
            if node.op == "placeholder":
                values[node.name] = next(given)
            elif node.op == "get_attr":
                values[node.name] = tensors[str(node.target)]
            elif node.op == "call_function":
                values[node.name] = _run(node, values)
                total = counter.get_total_flops()
                if total > before:
                    found[node.name] = (total - before) / 2
                before = total
    return found


def _run(node: Node, values: Mapping[str, Any]) -> Any:
    args, kwargs = map_arg((node.args, node.kwargs), lambda n: values[n.name])
    args = tuple(_META if isinstance(arg, torch.device) else arg for arg in args)
    kwargs = {key: _META if isinstance(value, torch.device) else value for key, value in kwargs.items()}
    return node.target(*args, **kwargs)  # type: ignore[operator]


def our_counts(program: Program) -> dict[str, float]:
    """The tool's multiply-adds of every operator on the batch that shapes are taken at, by node name."""
    found: dict[str, float] = {}
    for term in mac_terms(program):
        found[term.owner] = found.get(term.owner, 0.0) + dense_cost(program, term) / term.coefficient
    return found


def differences(program: Program, batch: int) -> dict[str, tuple[float, float]]:
    """Operators that are counted otherwise than torch counts them: (ours, torch's), scaled to one sample."""
    ours, theirs = our_counts(program), torch_counts(program, batch)
    shares = {term.owner: term.coefficient for term in mac_terms(program)}
    targets = {node.name: str(node.target) for node in program.module.graph.nodes}
    found: dict[str, tuple[float, float]] = {}
    for name in {**ours, **theirs}:
        pair = ours.get(name, 0.0), theirs.get(name, 0.0)
        if pair[0] != pair[1]:
            share, earlier = shares.get(name, 1 / batch), found.get(targets[name], (0.0, 0.0))
            found[targets[name]] = earlier[0] + pair[0] * share, earlier[1] + pair[1] * share
    return found


def compare(name: str, side: int, program: Program) -> Comparison:
    """Both counts of a program, and of what is left of it without random units."""
    found = Comparison(name, side)
    one = 1 if program.has_dynamic_batch else program.sampled_batch
    began = time.perf_counter()
    found.ours = count_macs(program)
    found.ours_s = time.perf_counter() - began
    began = time.perf_counter()
    theirs = torch_counts(program, one)
    found.torch_s = time.perf_counter() - began
    found.torch, found.n_operators = sum(theirs.values()) / one, len(theirs)
    found.differing = differences(program, program.sampled_batch)
    found.uncounted = uncounted_operators(program)
    units = find_units(program)
    keep = random_keep(units)
    planned = Budget.of_macs(program, units).cost(keep)
    left = slice_program(program, units, keep)
    found.cut = planned, count_macs(left), sum(torch_counts(left, one).values()) / one
    found.cut_differing = differences(left, left.sampled_batch)
    return found


def check(name: str, side: int) -> Comparison:
    """The comparison of a network by its name; what goes wrong is in `error`."""
    try:
        model = build(name, {}, seed=0).module.eval()
        return compare(name, side, capture(model, [InputSpec("input", (None, 3, side, side))]))
    except Exception as error:  # whatever it is, it belongs into the table
        return Comparison(name, side, error=f"{type(error).__name__}: {str(error)[:300]}")


def summary(rows: list[dict[str, Any]]) -> str:
    """How many agree, and every operator that does not, with the networks it is in."""
    agreeing = sum(Comparison(**row).agrees for row in rows)
    exact = sum(Comparison(**row).agrees and not row["differing"] for row in rows)
    lines = [f"{len(rows)} networks: {agreeing} agree, {exact} of them in every operator"]
    by_operator: Counter[str] = Counter(name for row in rows for name in row["differing"])
    for name, n in by_operator.most_common():
        worst = max(rows, key=lambda row: row["differing"].get(name, (0, 0))[0] / max(row["ours"], 1))
        ours, theirs = worst["differing"][name]
        lines.append(f"{name}: {n} networks; {worst['name']}: {ours:,.0f} against {theirs:,.0f} of {worst['ours']:,}")
    lines += [f"{row['name']}: {row['error'] or 'DIFFERS'}" for row in rows if not Comparison(**row).agrees]
    lines += [f"{row['name']}: not counted: {', '.join(row['uncounted'])}" for row in rows if row["uncounted"]]
    seconds = sum(row["ours_s"] for row in rows), sum(row["torch_s"] for row in rows)
    return "\n".join([*lines, f"{seconds[0]:.1f} s to count, torch's counter {seconds[1]:.1f} s"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="*")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows: list[dict[str, Any]] = json.loads(options.out.read_text()) if options.out.exists() else []
    known = {row["name"] for row in rows}
    for job in jobs():
        if job.name in known or not fnmatch.fnmatch(job.name, options.only):
            continue
        found = check(job.name, job.side)
        rows.append(asdict(found))
        print(
            f"{job.name}: {'agrees' if found.agrees else found.error or 'DIFFERS'} {found.differing or ''}", flush=True
        )
        options.out.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
        gc.collect()
    print(summary([row for row in rows if fnmatch.fnmatch(row["name"], options.only)]))


if __name__ == "__main__":
    main()
