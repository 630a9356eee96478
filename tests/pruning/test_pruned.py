"""Values of a report, as they are written."""

from __future__ import annotations

from compressor.asking import parse_pattern
from compressor.pruning.pruned import PruneReport
from compressor.report.jsonable import plain
from compressor.units import Macs, Params


def test_a_report_names_its_pattern_as_it_is_said() -> None:
    report = PruneReport(
        "random", parse_pattern("shape+filter"), "params", 2.0, 2.0, Params(4), Params(2), Macs(4), Macs(2), Params(2),
        Macs(2), 0, (), (),
    )  # fmt: skip
    assert f"{report.pattern}" == plain(report)["pattern"] == "filter+shape"
