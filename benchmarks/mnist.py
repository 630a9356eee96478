"""Han et al. and ADMM on full MNIST: `python -m benchmarks.mnist --mnist DIR [--cases han,reach,curve] [--seeds 3]`.

`han`: magnitude and ADMM at the ratios of the papers, with the same number of training epochs. `reach`: the ratios that
later papers reached, by the recipe that gets furthest: ADMM in several stages, whole units removed after each stage so
that the next one trains a smaller network, and a long retraining with distillation from the dense network. `curve`:
error against ratio for every method at one budget (Han et al. 2015, fig. 5), as SVG too.

Accuracy is that of the last epoch (nothing is selected on the test set). The results file is written after every run
and runs that it already holds are skipped, so a broken-off benchmark continues. CPU or CUDA: `--device`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import compressor
from compressor.asking import Admm, PruneSettings, Recipe, Recovery
from compressor.data import Batch, open_data, open_task
from compressor.data.arrays import Arrays, ArraySource
from compressor.data.task import Classification
from compressor.models import build
from compressor.program import InputSpec, Program, Record, capture
from compressor.training import fit
from compressor.training.distillation import soft_loss

DENSE = {
    "lenet-300-100": Recipe(epochs=20, batch_size=128, weight_decay=1e-4),
    "lenet5": Recipe(epochs=10, batch_size=128, weight_decay=1e-4),
}
DENSE_MOVED = 60
"""Epochs of the dense network of a case with moved images."""
BUDGET = {"lenet-300-100": 40, "lenet5": 12}
"""Training epochs of each pruning run of `han`, the same for both methods."""
CURVE_EPOCHS = 12
CURVE_RATIOS = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)

Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One network at one ratio. `way` are the ratios of the stages before the last, `find` and `heal` epochs.

    `last_rho` is the penalty of the last update of a stage: the higher the ratio, the harder the pull has to be.
    `distill` is the share of the dense network's opinion in the loss; a network that fits the training digits anyway is
    better off without. `shares` are the (layer, share) pairs of every stage where the allocation is set by hand. With
    `augment` all training, the dense network's too, sees images that are moved by up to two pixels; a teacher's outputs
    would be those of unmoved ones. `peak` is the rate that the last retraining starts from, the larger the smaller the
    network; 0 for 3e-3 after whole units and 1e-3 after weights. After it come `settle` epochs of images that stay
    where they are, from a small rate and with a teacher: what is asked in the end is about such images.
    """

    group: str
    arch: str
    pattern: str
    ratio: float
    methods: tuple[str, ...]
    way: tuple[float, ...] = ()
    find: tuple[int, ...] = ()
    heal: int = 0
    last_rho: float = 0.1
    select_inputs: bool = False
    shares: tuple[tuple[tuple[str, float], ...], ...] = ()
    augment: bool = False
    distill: float = 0.7
    peak: float = 0.0
    settle: int = 0


VIB = ((("fc1", 150 / 300), ("fc2", 60 / 100)), (("fc1", 71 / 150), ("fc2", 33 / 60)))
"""To 71 and 33 neurons in two stages, the widths of Dai et al. 2018 (VIB), who have 97 inputs left."""

MOVED = Case(
    "reach", "lenet-300-100", "channel", 28.0, ("admm",), way=(6.0,), find=(12, 16), heal=150, last_rho=1.0,
    select_inputs=True, shares=VIB, augment=True, distill=0.0, settle=10,
)  # fmt: skip

BOTH = ("magnitude", "admm")
CURVE = ("cut only", "cut, reconstructed", "retrained", "retrained, L1", "iterative", "admm")
CASES = (
    Case("han", "lenet-300-100", "unstructured", 12.0, BOTH),
    Case("han", "lenet5", "unstructured", 12.0, BOTH),
    Case("han", "lenet5", "channel", 17.0, BOTH),
    Case("reach", "lenet-300-100", "unstructured", 25.0, ("admm",), (), (8,), 8, 1.0, distill=0.0),
    Case("reach", "lenet-300-100", "channel", 28.0, ("admm",), (6.0,), (20, 25), 80, 0.5, True),
    MOVED,
    Case("reach", "lenet5", "channel", 60.5, ("admm",), (8.0, 22.0), (7, 10, 12), 60, 0.3),
    Case("reach", "lenet5", "channel", 157.0, ("admm",), (8.0, 28.0, 75.0), (7, 8, 10, 12), 60, 0.3, peak=1e-2),
    Case("reach", "lenet5", "unstructured", 75.0, ("admm",), (9.0,), (10, 10), 20, 0.3),
    *(Case("curve", "lenet-300-100", "unstructured", ratio, CURVE) for ratio in CURVE_RATIOS),
)


class Taught(Classification):
    """Cross entropy and the soft loss of a teacher whose outputs stand beside the labels: target (N, 1 + C).

    Without augmentation the teacher says the same in every epoch, so it is asked once; a LeNet-5 teacher otherwise
    costs more than its 150 times smaller student.
    """

    def __init__(self, share: float, temperature: float = 4.0) -> None:
        self.share, self.temperature = share, temperature

    def loss(self, outputs: Any, batch: Batch, *, smoothing: float = 0.0) -> Tensor:
        hard = super().loss(outputs, _labels(batch), smoothing=smoothing)
        return (1 - self.share) * hard + self.share * soft_loss(outputs, batch.target[:, 1:], self.temperature)

    def metrics(self, outputs: Any, batch: Batch) -> dict[str, tuple[float, int]]:
        return super().metrics(outputs, _labels(batch))


def _labels(batch: Batch) -> Batch:
    return Batch(batch.inputs, batch.target[:, 0].long())


def taught(data: ArraySource, teacher: Program, device: str) -> ArraySource:
    """The data with the teacher's outputs beside the labels."""

    def beside(split: str, part: Arrays) -> Arrays:
        with torch.no_grad():
            batches = data.batches(split, 1000, device=device)  # type: ignore[arg-type]
            outputs = torch.cat([teacher.module.to(device).eval()(*batch.inputs).cpu() for batch in batches])
        return Arrays(part.inputs, torch.cat([part.target[:, None].to(outputs.dtype), outputs], dim=1))

    made = replace(data, train=beside("train", data.train), val=beside("val", data.val))
    teacher.module.to("cpu")
    return made


def growing(first: float, last: float) -> Admm:
    """ADMM whose penalty comes to `last` at the last update."""
    return Admm(rho=first, rho_max=max(last, first))


def settings(case: Case, method: str, seed: int, device: str) -> PruneSettings:
    """`han`: both methods get the same epochs: ADMM spends 40 % of them on finding the structure, magnitude on two of
    three rounds of cutting and retraining."""
    total = BUDGET[case.arch]
    retrain = Recipe(epochs=total - round(0.4 * total), batch_size=128, distill=0.5)
    common = {"retrain_recipe": retrain, "seed": seed, "device": device}
    if method == "admm":
        find = Recipe(epochs=round(0.4 * total), batch_size=128, schedule="constant")
        admm = growing(1e-3, 0.1)
        return PruneSettings(
            round_to=1, ratio=case.ratio, method="admm", pattern=case.pattern, admm=admm, prune_recipe=find, **common
        )
    find = Recipe(epochs=round(0.2 * total), batch_size=128, distill=0.5)
    return PruneSettings(
        round_to=1, ratio=case.ratio, method="magnitude", pattern=case.pattern, steps=3, prune_recipe=find, **common
    )


def curve_settings(ratio: float, method: str, seed: int, device: str) -> PruneSettings:
    """One point of the curve: every method that trains gets the same epochs."""
    total = CURVE_EPOCHS
    recipe = Recipe(epochs=total, batch_size=128)
    plain = PruneSettings(
        round_to=1,
        ratio=ratio,
        method="magnitude",
        pattern="unstructured",
        retrain_recipe=recipe,
        seed=seed,
        device=device,
    )
    third = replace(recipe, epochs=total // 3)
    if method == "cut only":
        return replace(plain, retrain_recipe=None)
    if method == "cut, reconstructed":
        return replace(plain, retrain_recipe=None, recovery=Recovery(reconstruct=32))
    if method == "retrained, L1":
        return replace(plain, retrain_recipe=replace(recipe, l1=1e-4))
    if method == "iterative":
        return replace(plain, steps=3, prune_recipe=third, retrain_recipe=third)
    if method == "admm":
        half = replace(recipe, epochs=total // 2)
        find = replace(half, schedule="constant")
        return replace(plain, method="admm", admm=growing(1e-3, 0.3), prune_recipe=find,
                       retrain_recipe=half)  # fmt: skip
    return plain


@dataclass(frozen=True)
class Found:
    """What the stages of `reach` leave before the last retraining, and the error at the end of each."""

    program: Program
    widths: dict[str, int]
    stages: list[tuple[str, Any, Any]]


def lesson(case: Case, program: Program, data: ArraySource, device: str) -> tuple[ArraySource, Classification]:
    """Data and task of a case: with the opinion of the dense network, where it shares in the loss."""
    if case.distill:
        return taught(data, program, device), Taught(case.distill)
    task = open_task(None)
    assert isinstance(task, Classification)
    return data, task


def find(case: Case, program: Program, data: ArraySource, seed: int, device: str) -> Found:
    """Stage by stage to the ratio; whole units are removed in between, so that later epochs cost less."""
    source, task = lesson(case, program, data, device)
    dense, small, stages, widths = program.n_parameters, program, [], {}
    whole = case.pattern != "unstructured"
    for number, ratio in enumerate((*case.way, case.ratio)):
        now = dense / (small.n_parameters - small.n_zeroed)
        last = ratio == case.ratio
        recipe = Recipe(epochs=case.find[number], batch_size=128, schedule="constant", augment=case.augment)
        asked = PruneSettings(
        round_to=1, ratio=ratio / now if whole else ratio, method="admm", pattern=case.pattern, prune_recipe=recipe,
            admm=growing(1e-3, case.last_rho if last else min(case.last_rho, 0.2)),
            retrain_recipe=None if last else replace(recipe, epochs=2, schedule="cosine"),
            select_inputs=case.select_inputs, layers=case.shares[number] if case.shares else (), seed=seed,
            device=device,
        )  # fmt: skip
        small, report = compressor.prune(small, asked, data=source, task=task)
        stages += [(f"{ratio:g}x {row.name}", row.metrics, row.extra) for row in report.stages]
        widths = {cut.name: cut.kept for cut in report.layers}
        if whole:
            small, _ = compressor.compact(small)
    return Found(small, widths, stages)


def heal(
    case: Case, small: Program, teacher: Program, data: ArraySource, epochs: int, seed: int, device: str
) -> tuple[Program, list[Any]]:
    """The long last retraining and what the case asks for after it, with the metrics of every epoch."""
    source, task = lesson(case, teacher, data, device)
    peak = case.peak or (1e-3 if case.pattern == "unstructured" else 3e-3)
    recipe = Recipe(epochs=epochs, batch_size=128, lr=peak, augment=case.augment)
    healed, told = compressor.retrain(small, recipe, data=source, task=task, seed=seed, device=device)
    course = list(told.history)
    if case.settle:
        recipe = Recipe(epochs=case.settle, batch_size=128, lr=3e-4, distill=0.9)
        healed, told = compressor.retrain(healed, recipe, data=data, seed=seed, device=device, teacher=teacher)
        course += told.history
    return healed, course


def reach(case: Case, program: Program, data: ArraySource, seed: int, device: str) -> tuple[Program, Row]:
    """The stages, then the long retraining."""
    found = find(case, program, data, seed, device)
    healed, course = heal(case, found.program, program, data, case.heal, seed, device)
    stages = [*found.stages, ("retrain", course[case.heal - 1], {})]
    if case.settle:
        stages.append(("settle", course[-1], {}))
    kept = healed.n_parameters - healed.n_zeroed
    row = {
        "got": program.n_parameters / kept, "kept": kept, "widths": found.widths,
        "dense_error": _error(stages[0][1]), "error": _error(stages[-1][1]),
        "stages": [{"stage": name, "error": _error(metrics), **extra} for name, metrics, extra in stages],
        "last_errors": [_error(epoch) for epoch in course[-5:]],
        "epochs": sum(case.find) + 2 * len(case.way) + case.heal + case.settle,
    }  # fmt: skip
    return healed, row


def _error(metrics: Any) -> float:
    return round(100 - 100 * metrics["accuracy"], 4)


def run(case: Case, method: str, seed: int, mnist: str, cache: Path, device: str) -> Row:
    """One pruning run, as a row."""
    program, data = dense(case.arch, mnist, seed, cache, device, augment=case.augment), open_data(mnist)
    began, cpu = time.perf_counter(), time.process_time()
    head = {"group": case.group, "arch": case.arch, "pattern": case.pattern, "asked": case.ratio, "method": method,
            "seed": seed, "select_inputs": case.select_inputs, "augment": case.augment,
            "distill": case.distill, "settle": case.settle}  # fmt: skip
    if case.group == "reach":
        assert isinstance(data, ArraySource)
        pruned, row = reach(case, program, data, seed, device)
    else:
        asked = curve_settings(case.ratio, method, seed, device) if case.group == "curve" else None
        asked = asked or settings(case, method, seed, device)
        pruned, report = compressor.prune(program, asked, data=data)
        row = {
            "got": report.got, "kept": report.kept_params, "widths": {c.name: c.kept for c in report.layers},
            "stages": [{"stage": s.name, "error": _error(s.metrics)} for s in report.stages],
            "dense_error": _error(report.stages[0].metrics), "error": _error(report.stages[-1].metrics),
            "epochs": sum(s.epochs for s in report.stages),
        }  # fmt: skip
    if case.pattern == "channel" and pruned.masks:
        _, proof = compressor.compact(pruned, data=data)
        row |= {
            "compact_ratio": proof.dense_params / proof.compact_params,
            "mac_ratio": proof.dense_macs / proof.compact_macs,
            "compact_error": _error(proof.metrics),
            "float32_relative": proof.agreement.float32_relative if proof.agreement else None,
        }
    return head | row | {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}


def dense_recipe(arch: str, augment: bool) -> Recipe:
    """The training of the dense network, longer where its images are moved."""
    return replace(DENSE[arch], epochs=DENSE_MOVED, augment=True) if augment else DENSE[arch]


def dense(arch: str, mnist: str, seed: int, cache: Path, device: str = "cpu", *, augment: bool = False) -> Program:
    """The trained dense network of a seed, from the cache if it is there."""
    path = cache / f"{arch}{'-moved' if augment else ''}-{seed}.pt"
    if path.exists():
        return compressor.load(path)
    data, built = open_data(mnist), build(arch, {}, seed=seed)
    built.module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    recipe = dense_recipe(arch, augment)
    fit(built.module, data, open_task(None), recipe, seed=seed, evaluate_every=recipe.epochs, device=device)
    built.module.to("cpu")
    program = capture(built.module, [InputSpec("image", (None, 1, 28, 28))], record=Record(arch=arch, data=mnist))
    path.parent.mkdir(parents=True, exist_ok=True)
    compressor.save(program, path)
    return program


def table(rows: Sequence[Row]) -> str:
    """Mean and spread over the seeds, one line per case and method."""
    lines = [
        "| net | pattern | method | ratio | dense error % | error % (mean ± sd) | difference | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (arch, pattern, inputs, moved, _, method), of in grouped(rows):
        errors, before = [row["error"] for row in of], [row["dense_error"] for row in of]
        got = statistics.mean(row.get("compact_ratio", row["got"]) for row in of)
        spread = statistics.stdev(errors) if len(errors) > 1 else 0.0
        lines.append(
            f"| {arch} | {pattern}{' + inputs' if inputs else ''}{', moved' if moved else ''} | {method} | {got:.2f}x |"
            f" {statistics.mean(before):.2f} | {statistics.mean(errors):.2f} ± {spread:.2f} |"
            f" {statistics.mean(errors) - statistics.mean(before):+.2f} | {len(of)} |"
        )
    return "\n".join(lines)


def grouped(rows: Sequence[Row]) -> Iterator[tuple[tuple[Any, ...], list[Row]]]:
    """Rows that differ in nothing but the seed, under what they have in common."""

    def key(row: Row) -> tuple[Any, ...]:
        flags = (row.get(name, False) for name in ("select_inputs", "augment"))
        return row["arch"], row["pattern"], *flags, row["asked"], row["method"]

    for common in dict.fromkeys(map(key, rows)):
        yield common, [row for row in rows if key(row) == common]


def curve_svg(rows: Sequence[Row]) -> str:
    """Error against ratio, one line per method: the figure of the curve rows, as a file of its own."""
    from compressor.report.html.charts import Axis, Line, line_chart

    of = [(key[-1], key[-2], statistics.mean(r["error"] for r in same)) for key, same in grouped(rows)]
    methods = [name for name in reversed(CURVE) if any(method == name for method, _, _ in of)]
    lines = [
        Line(method, [(ratio, error) for other, ratio, error in of if other == method], f"s{number + 1}", dots=True)
        for number, method in enumerate(methods)
    ]
    chart = line_chart(
        "Error against ratio", "Test error of LeNet-300-100 on MNIST by method at one budget of training epochs", lines,
        Axis("dense ÷ kept", log=True), Axis("error %", log=True),
    )  # fmt: skip
    return standalone(chart, "LeNet-300-100 on MNIST: test error %")


def standalone(chart: Any, heading: str) -> str:
    """A chart of the reports as an SVG file of its own, with a heading above it."""
    from compressor.report.html.style import STYLE

    head = '<svg xmlns="http://www.w3.org/2000/svg" width="600" '
    svg = str(chart).replace("<svg ", head, 1).replace('viewBox="0 0 360 220"', 'viewBox="0 -24 360 244"', 1)
    above = f'<rect y="-24" width="360" height="244" fill="var(--card)"/><text x="10" y="-9">{heading}</text>'
    return svg.replace("</title>", f"</title><style>{STYLE}</style>{above}", 1)


def _key(row: Row) -> tuple[Any, ...]:
    """What makes a run the same run."""
    named = (row[name] for name in ("arch", "pattern", "asked", "method", "seed"))
    return row.get("group", "han"), *named, row.get("augment", False), row.get("settle", 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist", required=True, help="folder with the four IDX files")
    parser.add_argument("--cases", default="han,reach", help="groups of cases: han, reach, curve")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=1, help="to spread seeds over processes")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/mnist.json"))
    parser.add_argument("--only", help="run one network only")
    parser.add_argument("--pattern", help="run one pattern only")
    parser.add_argument("--ratio", type=float, help="run one ratio only")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = json.loads(options.out.read_text()) if options.out.exists() else []
    groups = options.cases.split(",")
    wanted = {"arch": options.only, "pattern": options.pattern, "ratio": options.ratio}
    cases = [
        case for case in CASES
        if case.group in groups and all(v is None or getattr(case, k) == v for k, v in wanted.items())
    ]  # fmt: skip
    done = {_key(row) for row in rows}
    mnist = f"mnist:{Path(options.mnist).resolve()}"
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for case, method in ((c, m) for c in cases for m in c.methods):
            if _key({**asdict(case), "asked": case.ratio, "method": method, "seed": seed}) in done:
                continue
            rows.append(run(case, method, seed, mnist, options.out.parent / "dense", options.device))
            options.out.write_text(json.dumps(rows, indent=1))
            print(json.dumps({k: v for k, v in rows[-1].items() if k != "stages"}), flush=True)
    for group in groups:
        print(f"\n{group}\n" + table([row for row in rows if row.get("group", "han") == group]))
    curve = [row for row in rows if row.get("group") == "curve"]
    if curve:
        options.out.with_suffix(".svg").write_text(curve_svg(curve))


if __name__ == "__main__":
    main()
