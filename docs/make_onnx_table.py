"""The tables of ONNX operators in onnx.md, from the importers' own docstrings."""

from __future__ import annotations

from compressor.formats.onnx_import.importers import IMPORTER_MODULES
from compressor.formats.onnx_import.table import IMPORTERS, REFUSED, SIZE_IMPORTERS
from docs.generated import Part, by_function, first_line, table


def operators() -> str:
    """One row per importer: the operators it stands for, and the first line of its docstring; then the refusals."""
    rows = (
        (", ".join(f"`{kind}`" + (" ¹" if kind in SIZE_IMPORTERS else "") for kind in kinds), first_line(importer))
        for importer, kinds in by_function(IMPORTERS, IMPORTER_MODULES).items()
    )
    reasons: dict[str, list[str]] = {}
    for kind, reason in REFUSED.items():
        reasons.setdefault(reason, []).append(f"`{kind}`")
    refused = ((", ".join(kinds), reason) for reason, kinds in reasons.items())
    return "\n\n".join(
        (
            f"{len(IMPORTERS)} operators, and `If` where its condition is known while importing.",
            table(("ONNX operators", "ATen"), rows),
            "Known and refused:",
            table(("ONNX operators", "Why"), refused),
        )
    )


PART = Part("onnx.md", "operators", operators)
