"""Small results of every command, with hostile names, to draw pages from."""

from __future__ import annotations

from dataclasses import replace

from compressor.analysis import Analysis, LayerCost, LayerLatency, LayerRow, PinRow, UnitGroup
from compressor.asking import Sensitivity, parse_pattern
from compressor.compaction.removed import CompactReport, LayerChange, Proof
from compressor.program.record import Record, Step
from compressor.pruning.pruned import LayerCut, PruneReport, RetrainReport, StageRow
from compressor.report.html import About
from compressor.timing.measured import (
    BenchReport,
    BenchWarning,
    Environment,
    OperatorTime,
    Profile,
    Subject,
    Timing,
    WarningKind,
)
from compressor.units import Macs, Params

HOSTILE = '</title><script>alert("x")</script>&\x00\u202e'
ACCURACIES = (0.62, 0.41, 0.88, 0.93, 0.95, 0.958, 0.961, 0.967, 0.969, 0.971)


def about(command: str, *, output: str | None = "out/model.small.pt") -> About:
    return About(
        command=command,
        model="zoo/model.pt",
        options={"ratio": "13x", "scope": ["conv*", "fc 1"], "heads": True, "augment": False},
        seed=7,
        sha256="9d4d93700481fa78f3da1b4a0870a5ef7caf5867b9f7864a6eb16b04aa107d51",
        output=output,
        versions={"compressor": "0.1.0", "torch": "2.13.0"},
        record=record(),
    )


def record() -> Record:
    first = {"asked": 13.0, "got": 13.02, "of": "params", "params": 33111, "accuracy": 0.968, "loss": 0.13, "n": 1000}
    second = {"params": 33111, "accuracy": 0.9731, "loss": 0.12, "n": 1000}
    third = {"params": 30210, "removed": 400870, "accuracy": 0.9731, "n": 1000}
    made = {"compressor": "0.0.9", "torch": "2.13.0"}
    return Record(
        arch="lenet5",
        data="mnist.npz",
        dense_params=431080,
        steps=(
            Step("prune", {"ratio": "13x"}, {**first, "before": {"accuracy": 0.975}}, 0, "ab" * 32, made, "2026-01-02"),
            Step("retrain", {"teacher": HOSTILE}, second, 0, "cd" * 32, made, "2026-01-03"),
            Step("compact", {}, third, 0, "ef" * 32, made, "2026-01-04"),
        ),
    )


def analysis(n_blocks: int = 3) -> Analysis:
    """A chain of convolutions with a residual stream over all of them; the last layer's name is hostile."""
    names = [f"layer{i}.conv{j}" for i in range(n_blocks) for j in (1, 2)] + [HOSTILE]
    rows = [
        LayerRow(
            name, "linear" if name == HOSTILE else "conv2d", (16, 16, 3, 3), (None, 16, 32, 32), Params(2304 * (i + 1)),
            Macs(2_359_296), 40 * i, 16, 0 if name == HOSTILE else 16, "output of the network" if i == 6 else None,
        )
        for i, name in enumerate(names)
    ]  # fmt: skip
    stream = tuple(f"layer{i}.conv2" for i in range(n_blocks))
    own = [UnitGroup(16, 290.0, (f"layer{i}.conv1", f"layer{i}.conv2")) for i in range(n_blocks)]
    return Analysis(
        n_params=Params(sum(row.params for row in rows)),
        n_zeroed=840,
        macs=Macs(sum(row.macs for row in rows)),
        n_activations=100_352,
        n_units=16 * (n_blocks + 1),
        prunable_params=Params(50_000),
        layers=tuple(rows),
        groups=(UnitGroup(16, 900.0, (*stream, HOSTILE)), *own),
        pins=(PinRow(f"{HOSTILE} at output", "output of the network", 16),),
        unknown_operators=("aten.matrix_exp.default",),
        notes=("dropped: auxiliary head",),
        metrics={"accuracy": 0.9386, "loss": 0.23, "n": 10000},
    )


def scan(n_layers: int = 7) -> Sensitivity:
    names = [f"layer{i}.conv" for i in range(n_layers - 1)] + [HOSTILE]
    shares = (0.25, 0.5, 0.75, 0.9)
    curves = {
        name: tuple((share, max(0.1, 0.938 - share**2 * (0.05 + 0.12 * i))) for share in shares)
        for i, name in enumerate(names)
    }
    curves["downsample"] = curves[names[0]]  # the same units: the same numbers
    return Sensitivity("accuracy", 0.938, 1000, "channel", curves, unmeasured=("late.conv",))


def history(epochs: int, *, residual: bool = False) -> tuple[dict[str, float], ...]:
    rows: list[dict[str, float]] = []
    for i in range(epochs):
        row = {"epoch": i + 1, "lr": 0.001 / (i + 1), "train_loss": 0.5 / (i + 1), "loss": 0.4 / (i + 1) + 0.02}
        row |= {"sparsity": 0.9231} if residual or epochs > 5 else {}
        row |= {"accuracy": ACCURACIES[i], "n": 1000.0, "seconds": 2.5}
        plan = max(0.9 * (1 - i / 6), 0.0)
        told = {"residual": 0.9 * 0.6**i, "rho": 0.001 * 2**i, "planned residual": plan}
        rows.append(row | (told if residual else {}))
    return tuple(rows)


def stages() -> tuple[StageRow, ...]:
    admm, again = history(10, residual=True), history(6)
    last = {"residual": admm[-1]["residual"], "rho": 0.5}
    return (
        StageRow("dense", 1.0, Params(431080), 0, 0.0, {"accuracy": 0.975, "loss": 0.12, "n": 1000}),
        StageRow("admm", 1.0, Params(431080), 10, 61.0, {"accuracy": 0.971, "loss": 0.13, "n": 1000}, last, admm),
        StageRow("hard prune", 13.0, Params(33111), 0, 0.2, {"accuracy": 0.94, "loss": 0.2, "n": 1000}),
        StageRow("retrain", 13.0, Params(33111), 6, 40.0, {"accuracy": 0.9731, "loss": 0.11, "n": 1000}, {}, again),
    )


def pruning(asked: float | None = 13.0) -> PruneReport:
    return PruneReport(
        "admm", parse_pattern("channel"), "params", asked, 13.02, Params(431080), Params(33111),
        Macs(2_293_000), Macs(650_000), Params(33111), Macs(650_000), 0,
        (LayerCut("conv1", 15, 20, Params(390), Params(520)),
         LayerCut(HOSTILE, 93, 500, Params(25389), Params(400500))),
        stages(), ("asked 13.0x, got 13.02x: whole units come no closer",), 102.0,
    )  # fmt: skip


def costs() -> tuple[LayerCost, ...]:
    return (
        LayerCost("conv1", (20, 1, 5, 5), Params(520), Macs(288_000), Params(390), Macs(216_000), "", (20, 15)),
        LayerCost("bn1", (20,), Params(40), Macs(0), Params(30), Macs(0), "conv1"),
        LayerCost(HOSTILE, (500, 800), Params(400_500), Macs(400_000), Params(25_389), Macs(25_300), "", (500, 93)),
    )


def residual_network(n_blocks: int = 27) -> tuple[PruneReport, tuple[LayerCost, ...]]:
    """A network as deep as ResNet-56, with the names it has there: what a page must hold without scrolling sideways."""
    names = [f"layer{1 + 3 * i // n_blocks}.{i % (n_blocks // 3)}.conv{j}" for i in range(n_blocks) for j in (1, 2)]
    rows: list[LayerCost] = []
    cuts: list[LayerCut] = []
    for i, name in enumerate(names):
        width = (16, 32, 64)[3 * i // len(names)]
        kept = max(width - i % 9, 2)
        share = kept / width
        params, macs = 9 * width * width, 9 * width * width * (32 * 16 // width) ** 2
        rows.append(
            LayerCost(
                name, (width, width, 3, 3), Params(params), Macs(macs), Params(round(params * share)),
                Macs(round(macs * share)), "", (width, kept),
            )
        )  # fmt: skip
        norm = name.replace("conv", "bn")
        rows.append(LayerCost(norm, (width,), Params(2 * width), Macs(0), Params(2 * kept), Macs(0), name))
        cuts.append(LayerCut(name, kept, width, Params(round(params * share) + 2 * kept), Params(params + 2 * width)))
    return replace(pruning(), layers=tuple(cuts)), tuple(rows)


def retraining() -> RetrainReport:
    rows = stages()
    return RetrainReport((rows[2], rows[3]), history(6), 397_969, "no better accuracy for 3 epochs", 40.0)


def compaction(*, rescaled: bool = False) -> CompactReport:
    agreement = None if rescaled else Proof(4.9e-16, 2.6e-7, 1e-10, 1e-5, 3, True)
    return CompactReport(
        Params(431080), Params(431080), Params(33111), Macs(2_293_000), Macs(650_000), 445, 12,
        (LayerChange(HOSTILE, (500, 800), (93, 272)),), (f"{HOSTILE}: read by an operator without a rule",) * 14,
        agreement, {"accuracy": 0.9731}, 0.8, (HOSTILE,) if rescaled else (),
    )  # fmt: skip


def latencies() -> tuple[LayerLatency, ...]:
    return (
        LayerLatency("conv1", 12e-6, 15e-6), LayerLatency(HOSTILE, 40e-6, 4e-6), LayerLatency("gone", 8e-6, None),
    )  # fmt: skip


def profile(subject: Subject, *, faster: float) -> Profile:
    times = (("conv1", "Conv", 12e-6), (None, "Relu", 3e-6), (HOSTILE, "Gemm", 40e-6))
    operators = tuple(OperatorTime(layer, operator, seconds / faster) for layer, operator, seconds in times)
    return Profile(subject, "cpu", 1, 1, 100, sum(one.seconds for one in operators), operators)


def bench(*, with_accuracy: bool = True, n_profiles: int = 0) -> BenchReport:
    def timing(name: str, median_s: float, size: int, speedup: float, accuracy: float) -> Timing:
        return Timing(
            Subject(name, name, "onnx", size, size // 4), "cpu", 1, 1, 50, 20, 4, median_s, median_s * 1.02,
            median_s * 1.1, median_s * 1.4, median_s * 0.95, median_s * 0.02, 1, 1 / median_s, None,
            accuracy if with_accuracy else None, speedup, speedup * 0.97, speedup * 1.04,
            "reference" if speedup == 1 else "faster",
        )  # fmt: skip

    timings = (
        timing("dense.onnx", 120e-6, 1_724_320, 1.0, 0.975), timing(f"{HOSTILE}.onnx", 61e-6, 135_000, 1.97, 0.9731),
        timing("small.onnx", 40e-6, 80_000, 3.0, 0.951),
    )  # fmt: skip
    macs = (2_293_000, 660_000, 400_000)
    timings = tuple(replace(t, subject=replace(t.subject, macs=n)) for t, n in zip(timings, macs, strict=True))
    where = Environment("A CPU", 2, None, "2.13.0", "1.31.1", "3.11", "Linux", 0.4)
    noisy = BenchWarning(WarningKind.NOISY, "dense.onnx: MAD 6 % of the median")
    profiles = tuple(profile(t.subject, faster=1.0 + 3 * i) for i, t in enumerate(timings[:n_profiles]))
    return BenchReport(timings, (noisy,), where, 12, profiles)


def bench_grid() -> BenchReport:
    """Two models over two numbers of threads and two batches, on eight threads slower; one tail ten times as long."""
    report = bench()
    timings: list[Timing] = []
    for threads, batch in ((1, 1), (1, 16), (8, 1), (8, 16)):
        for i, timing in enumerate(report.timings):
            slower = threads == 8 and i > 0
            timings.append(
                replace(
                    timing, threads=threads, batch=batch, p90_s=timing.median_s * (1.1 if i else 10),
                    speedup=0.7 if slower else timing.speedup, verdict="slower" if slower else timing.verdict,
                )
            )  # fmt: skip
    return replace(report, timings=tuple(timings))
