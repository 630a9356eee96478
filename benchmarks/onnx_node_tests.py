"""onnx's own tests of single operators, imported: `python -m benchmarks.onnx_node_tests [--only GLOB]`.

Every case is imported twice: with all of its inputs going in, and with all but the first float as weights of the file,
as networks have them. What the program computes must be what the case holds; a refusal must have a reason. Files of
16-bit floats are widened when they are imported, so they may differ from their data by the roundings of that type. The
section in docs/onnx.md is written from the result.
"""

from __future__ import annotations

import argparse
import fnmatch
import io
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor

from compressor.errors import CompressError
from compressor.formats.onnx_import import import_onnx
from compressor.program import Program

PAGE = Path(__file__).parents[1] / "docs" / "onnx.md"
BEGIN, END = "<!-- node tests: begin -->", "<!-- node tests: end -->"
FORMS = ("all inputs go in", "weights in the file")
HALF_TOLERANCE: dict[int, float] = {TensorProto.FLOAT16: 2**-9, TensorProto.BFLOAT16: 2**-6}
"""Relative, and of the largest value: two roundings of the type."""

REASONS = {
    "no importer": r"operators that cannot be imported",
    "another opset or type": (
        r"written in opset|is no tensor of a type|element type that is not supported|casts to a type|elements and holds"
    ),
    "a shape, a bound or a count that is itself an input": (
        r"network's own values|must be one fixed number is computed|depends on the batch size, where|is computed"
    ),
    "an input without a batch": r"single number, without a batch|leaves sizes open|has no inputs",
    "not valid ONNX by its own checker": r"is not valid ONNX",
}
"""Why cases are refused: the first that fits; `a form of the operator` where none does."""


@dataclass(frozen=True)
class Outcome:
    """What became of one case in one form, and why: right, refused, wrong, or runtime where onnxruntime gives other
    numbers than the case holds and the program gives those of onnxruntime."""

    name: str
    form: str
    kind: str
    reason: str = ""


def cases() -> Iterator[Any]:
    """The cases that the installed onnx makes."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield from collect_testcases(None)  # type: ignore[arg-type]


def outcome(case: Any, form: str) -> Outcome:
    """One case, imported and run on its own data."""
    inputs, outputs = case.data_sets[0]
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    given = dict(zip([value.name for value in model.graph.input], map(_array, inputs), strict=False))
    if form == FORMS[1]:
        _hold_weights(model, given)
    try:
        program = import_onnx(io.BytesIO(model.SerializeToString()), case.name)
    except CompressError as error:
        return Outcome(case.name, form, "refused", str(error).removeprefix(f"{case.name}: ").splitlines()[0])
    except Exception as error:  # whatever it is, it belongs into the table
        return Outcome(case.name, form, "wrong", f"{type(error).__name__}: {error}")
    why = _difference(program, given, [_array(value) for value in outputs], case)
    note = program.record.notes[-1]
    kind = (
        "right" if why is None else "runtime" if _agrees(note) and _runtime_differs(model, given, outputs) else "wrong"
    )
    return Outcome(case.name, form, kind, why or note)


def _agrees(note: str) -> bool:
    return note.startswith("agrees with")


def _runtime_differs(model: onnx.ModelProto, given: dict[str, Any], outputs: list[Any]) -> bool:
    """Whether onnxruntime itself does not give what the case holds."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {value.name: given[value.name] for value in session.get_inputs()})
    return not all(np.allclose(a, _array(b), 1e-3, 1e-5) for a, b in zip(found, outputs, strict=True))


def _array(value: Any) -> Any:
    """An input or output as numpy has it; None for a sequence or an optional value."""
    if isinstance(value, TensorProto):
        value = numpy_helper.to_array(value)
    if value is None or isinstance(value, list | tuple):
        return None
    return np.asarray(value)


def _hold_weights(model: onnx.ModelProto, given: dict[str, Any]) -> None:
    """Makes every input but the first float (the first, if there is none) an initializer (edits the model in place)."""
    known = {name: array for name, array in given.items() if array is not None}
    floats = [name for name, array in known.items() if _is_floating(array)]
    first = next(iter(floats), next(iter(known), None))
    for name, array in known.items():
        if name != first:
            model.graph.initializer.append(numpy_helper.from_array(array, name))
    kept = [value for value in model.graph.input if value.name == first or value.name not in known]
    del model.graph.input[:]
    model.graph.input.extend(kept)


def _is_floating(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def _difference(program: Program, given: dict[str, Any], wanted: list[Any], case: Any) -> str | None:
    """How what the program computes differs from the case's data; None if it does not."""
    try:
        with torch.no_grad():
            found = program.module(*(_tensor(given[spec.name]) for spec in program.inputs))
    except Exception as error:  # torch raises anything from IndexError to its own C++ errors here
        return f"torch cannot run it: {(str(error).splitlines() or [''])[0]}"
    leaves = list(found.values()) if isinstance(found, dict) else [found]
    extra = max((HALF_TOLERANCE.get(kind, 0.0) for kind in _kinds(case.model)), default=0.0)
    for own, expected in zip(leaves, map(_tensor, wanted), strict=True):
        if own.shape != expected.shape or own.dtype != expected.dtype:
            return f"{own.dtype} {tuple(own.shape)} instead of {expected.dtype} {tuple(expected.shape)}"
        mine, theirs = own.double(), expected.double()
        finite = theirs[theirs.isfinite()].abs()
        share = extra * float(finite.max()) if finite.numel() else 0.0
        if not torch.allclose(mine, theirs, rtol=case.rtol + extra, atol=case.atol + share, equal_nan=True):
            return f"differs by {float((mine - theirs).abs().nan_to_num().max()):.2g}"
    return None


def _tensor(array: np.ndarray) -> Tensor:
    wide = array.astype(np.float32) if array.dtype.name in ("bfloat16", "float16") else array
    return torch.from_numpy(np.array(wide))


def _kinds(model: onnx.ModelProto) -> set[int]:
    values = (*model.graph.input, *model.graph.output)
    return {value.type.tensor_type.elem_type for value in values}


def group(reason: str) -> str:
    """The kind of refusal that a reason belongs to."""
    return next((name for name, found in REASONS.items() if re.search(found, reason)), "a form of the operator")


def table(found: list[Outcome]) -> str:
    """The section of docs/onnx.md between its marks."""
    page = io.StringIO()
    page.write(f"onnx {onnx.__version__} makes {len({part.name for part in found}):,} of them.\n\n")
    page.write("| | right | compared with onnxruntime too | as onnxruntime, which differs | refused | wrong |\n")
    page.write("|---|--:|--:|--:|--:|--:|\n")
    for form in FORMS:
        kinds = Counter(part.kind for part in found if part.form == form)
        compared = sum(part.form == form and _agrees(part.reason) for part in found)
        told = (kinds[kind] for kind in ("runtime", "refused", "wrong"))
        page.write(f"| {form} | {kinds['right']} | {compared} | {' | '.join(map(str, told))} |\n")
    page.write("\n| refused for | all inputs go in | weights in the file |\n|---|--:|--:|\n")
    refused = [(group(part.reason), part.form) for part in found if part.kind == "refused"]
    for name in sorted({name for name, _ in refused}, key=lambda name: -sum(name == other for other, _ in refused)):
        page.write(f"| {name} | {refused.count((name, FORMS[0]))} | {refused.count((name, FORMS[1]))} |\n")
    differing = sorted({part.name for part in found if part.kind == "runtime"})
    if differing:
        page.write(f"\nonnxruntime differs in {', '.join(differing)}.\n")
    for part in found:
        if part.kind == "wrong":
            page.write(f"\n**{part.name}**, {part.form}: {part.reason}\n")
    return page.getvalue().strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="*", help="cases whose name fits")
    parser.add_argument("--reasons", action="store_true", help="print every refusal")
    told = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [case for case in cases() if fnmatch.fnmatch(case.name, told.only)]
    found = [outcome(case, form) for form in FORMS for case in chosen]
    if told.reasons:
        print("\n".join(f"{part.form} | {part.name} | {part.reason}" for part in found if part.kind == "refused"))
    section = table(found)
    print(section)
    if told.only == "*":
        head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        _, _, tail = rest.partition(END)
        PAGE.write_text(f"{head}{BEGIN}\n\n{section}\n\n{END}{tail}", encoding="utf-8")
    return int(any(part.kind == "wrong" for part in found))


if __name__ == "__main__":
    raise SystemExit(main())
