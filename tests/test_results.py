"""Every section of the results says at which commit it was measured, and what code it depends on."""

import pytest

from benchmarks.stale import RESULTS, ROOT, Section, sections, table


def test_every_section_says_what_it_was_measured_at() -> None:
    found = sections(RESULTS.read_text(encoding="utf-8"))
    assert len(found) > 15
    missing = [path for section in found for path in section.paths if not (ROOT / path).exists()]
    assert not missing, missing


def test_a_section_that_does_not_say_is_named() -> None:
    with pytest.raises(ValueError, match="## Speed: its first line must be"):
        sections("# Results\n\n## Speed\n\nVery fast.\n")


def test_the_line_is_read() -> None:
    text = "## Speed\n\n*Measured at `1234567`, `89abcdef`: `compressor/cli`, `compressor/cost`.*\n"
    found = sections(text)
    assert found == [Section("Speed", ("1234567", "89abcdef"), ("compressor/cli", "compressor/cost"))]
    assert table([(found[0], ["a", "b"])]).endswith("| Speed | 1234567 | 2 |")
