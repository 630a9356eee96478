"""Where a result comes from, as commands that can be pasted into a shell; it must never run or check one."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from compressor.program.record import Record, Step
from compressor.report.html.markup import Markup, tag
from compressor.report.html.page import About, section
from compressor.report.text import metrics

COMMANDS = ("prune", "retrain", "compact", "export")
"""Those that add a step to a model's history. A step of another name was made from Python, and is told as one."""


def provenance(about: About) -> Markup:
    """This run and every command that made the model, with seeds, versions and digests.

    Read from top to bottom the commands are a script: each reads what the one before it wrote. Which file the first
    one read is not in the history, only its digest, so that it is `$MODEL`.
    """
    record = about.record
    steps = record.steps if record is not None else ()
    told_by_step = bool(steps) and steps[-1].command == about.command and about.output is not None
    items: list[Markup] = []
    read = _shell(about) if told_by_step and len(steps) == 1 else '"$MODEL"'
    for i, step in enumerate(steps):
        written = _written(about, i, len(steps), told_by_step=told_by_step)
        if step.command not in COMMANDS:
            items.append(_made_in_python(step, about))
            read = _shell(about) if i + 2 == len(steps) and told_by_step else read
            continue
        typed = command_line(step.command, {**_said(step, record), "output": written}, read)
        if read == '"$MODEL"':
            items.append(_item("MODEL=model.pt", [_digest("the file that the next command read", step)]))
        items.append(_item(typed, _about_step(step, about)))
        read = shlex.quote(written)
    if not told_by_step:
        now = [f"seed {about.seed}"] if about.seed is not None else []
        said = {**about.options, **_where(record, about.where), "seed": about.seed or None}
        items.append(_item(command_line(about.command, said, _shell(about)), [*now, f"of {about.model}"]))
    lead = "Every command behind this result, the last one at the bottom"
    made = f"; architecture {record.arch}" if record is not None and record.arch else ""
    return section("Provenance", f"{lead}{made}.", tag("ol", items, class_="history"))


def _written(about: About, i: int, n: int, *, told_by_step: bool) -> str:
    """What step `i` of `n` wrote: the page knows the files of its own run, the others get names that fit."""
    ours = about.output if told_by_step else about.model
    if i == n - 1 and ours not in (None, "-", "init"):
        return ours
    if i == n - 2 and told_by_step and about.model not in ("-", "init"):
        return about.model
    return f"step{i + 1}.pt"


def _said(step: Step, record: Record | None) -> dict[str, Any]:
    return {**step.options, **_where(record, {}), "seed": step.seed or None}


def _where(record: Record | None, said: Mapping[str, str]) -> dict[str, str]:
    """Data and task, as the record has them or, where there is none, as they were said."""
    known = {"data": record.data, "task": record.task} if record is not None else said
    return {name: text for name, text in known.items() if text}


def _shell(about: About) -> str:
    """MODEL as it is typed; of several, each by itself."""
    return " ".join(shlex.quote(name) for name in about.models or (about.model,))


def _made_in_python(step: Step, about: About) -> Markup:
    options = ", ".join(f"{name} {value}" for name, value in step.options.items() if value not in (None, False))
    told = tag("div", f"{step.command}, from Python", f": {options}" if options else "")
    return tag("li", told, tag("div", " · ".join(_about_step(step, about)), class_="aside"))


def _about_step(step: Step, about: About) -> list[str]:
    told = [
        step.time_utc.replace("T", " ").replace("+00:00", " UTC"),
        f"seed {step.seed}" if step.seed is not None else "",
        _digest("from", step),
        metrics({k: v for k, v in step.metrics.items() if isinstance(v, float) and k not in ("asked", "got")}),
        " ".join(f"{name} {v}" for name, v in step.versions.items() if about.versions.get(name) != v),
    ]
    return [text for text in told if text]


def _digest(what: str, step: Step) -> str:
    return f"{what} SHA-256 {step.parent_sha256}" if step.parent_sha256 else ""


def _item(command: str, told: list[str]) -> Markup:
    aside = " · ".join(text for text in told if text)
    return tag("li", tag("pre", tag("code", command)), tag("div", aside, class_="aside") if aside else None)


def command_line(command: str, options: Mapping[str, Any], model: str = "") -> str:
    """`compress prune net.pt --ratio 13x --steps 1`: what was asked in full, as one can type it."""
    words = ["compress", command, *([model] if model else [])]
    for name, value in options.items():
        flag = f"--{name}"
        if value is False or value is None:
            continue
        if value is True:
            words.append(flag)
        elif isinstance(value, (list, tuple)):
            words += [word for part in value for word in (flag, shlex.quote(str(part)))]
        else:
            words += [flag, shlex.quote(str(value))]
    return " ".join(words)
