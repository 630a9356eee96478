"""The look of a page: its style sheet and the switch between light and dark; it must never hold what a page says."""

from __future__ import annotations

import base64
import hashlib

_LIGHT = """
  color-scheme: light;
  --page: #fafaf8; --card: #ffffff; --ink: #1a1d21; --soft: #5a636e; --rule: #e4e5e1; --grid: #ecedea;
  --before: #c4c9cf; --s1: #0b6e63; --s2: #a8480a; --s3: #4043b8; --s4: #a61b4b; --s5: #5a636e; --s6: #7a6500;
  --wash: #e3f1ee; --bad: #b3261e;
"""
_DARK = """
  color-scheme: dark;
  --page: #121417; --card: #191c20; --ink: #e9eaec; --soft: #a2abb6; --rule: #2c3137; --grid: #24282d;
  --before: #4d5661; --s1: #4fd1bd; --s2: #f0a560; --s3: #a5a8ff; --s4: #ff9db8; --s5: #a2abb6; --s6: #dcc65a;
  --wash: #16302d; --bad: #ff8a80;
"""

_COLOURS = (
    ":root {" + _LIGHT + "}\n@media (prefers-color-scheme: dark) { :root:not([data-theme=light]) {" + _DARK + "} }\n"
)
_BEFORE = (
    ":root[data-theme=dark] {" + _DARK + "}\n"
    """
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif;
  font-variant-numeric: tabular-nums;
}
main, header, footer { max-width: 1120px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 36px; display: flex; gap: 24px; justify-content: space-between; align-items: flex-start; }
h1 { font-size: 26px; line-height: 1.25; font-weight: 650; letter-spacing: -.015em; margin: 2px 0 4px;
  overflow-wrap: anywhere; }
h2 { font-size: 17px; font-weight: 650; margin: 0 0 2px; }
.kicker { color: var(--s1); font-weight: 600; font-size: 13px; letter-spacing: .02em; }
.lead { color: var(--soft); margin: 0; max-width: 74ch; overflow-wrap: anywhere; }
button { flex: none; font: inherit; font-size: 13px; color: var(--soft); background: none; cursor: pointer;
  border: 1px solid var(--rule); border-radius: 999px; padding: 4px 12px; }
button:hover { color: var(--ink); border-color: var(--soft); }
:focus-visible { outline: 2px solid var(--s1); outline-offset: 2px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(168px, 1fr)); margin: 24px 0 8px;
  background: var(--card); border: 1px solid var(--rule); border-radius: 10px; overflow: hidden; }
.tile { padding: 14px 18px 15px; box-shadow: 1px 1px 0 var(--rule); }
.tile dt { color: var(--soft); font-size: 13px; }
.tile dd { margin: 0; }
.tile .value { font-size: 25px; line-height: 1.3; font-weight: 650; letter-spacing: -.02em; white-space: nowrap; }
.tile .value.long { font-size: 19px; line-height: 1.7; white-space: normal; overflow-wrap: anywhere; }
.tile .aside { color: var(--soft); font-size: 13px; }
section { margin: 36px 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(330px, 100%), 1fr)); gap: 18px;
  margin-top: 14px; align-items: start; }
figure { margin: 0; background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 12px 12px 8px;
  min-width: 0; }
figure.wide { grid-column: 1 / -1; }
figcaption { font-size: 13px; font-weight: 600; padding: 0 4px 4px; }
figcaption span { color: var(--soft); font-weight: 400; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
.scroll { overflow-x: auto; margin-top: 14px; background: var(--card); border: 1px solid var(--rule);
  border-radius: 10px; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: 12.5px; vertical-align: bottom; }
th, td { padding: 6px 9px; white-space: nowrap; }
th:first-child, td:first-child { padding-left: 16px; } th:last-child, td:last-child { padding-right: 16px; }
thead th { border-bottom: 1px solid var(--rule); padding-top: 10px; }
tbody tr + tr td, tbody tr + tr th { border-top: 1px solid var(--grid); }
tbody th { color: var(--ink); font-size: 13.5px; font-weight: 400; }
.long { display: inline-block; width: 24ch; white-space: normal; overflow-wrap: anywhere; }
.tall { max-height: 640px; overflow-y: auto; }
.tall thead th { position: sticky; top: 0; background: var(--card); box-shadow: 0 1px 0 var(--rule); }
.tall tfoot td, .tall tfoot th { position: sticky; bottom: 0; background: var(--card);
  box-shadow: 0 -1px 0 var(--rule); }
.warnings { margin: 12px 0 0; padding: 8px 16px; background: var(--card); border: 1px solid var(--s2);
  border-left-width: 4px; border-radius: 6px; font-size: 13.5px; overflow-wrap: anywhere; }
.warnings p { margin: 3px 0; }
.key { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin: 0 4px 0 8px; }
.key.dense { background: var(--before); } .key.kept { background: var(--s1); }
.widths { margin-top: 14px; }
.stack { display: grid; gap: 18px; min-width: 0; }
tfoot td, tfoot th { border-top: 1px solid var(--rule); font-weight: 600; color: var(--ink); font-size: 13.5px; }
.n, .heat { text-align: right; }
th.mono { font: inherit; font-size: 12.5px; font-weight: 600; }
td.text { white-space: normal; min-width: 22ch; overflow-wrap: anywhere; }
code, .mono { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .92em; }
td.bar { width: 22%; min-width: 84px; }
td.bar svg { height: 12px; }
td.heat span { display: block; margin: -3px -7px; padding: 3px 7px; border-radius: 4px; }
.split { display: grid; gap: 18px; align-items: start; margin-top: 14px; }
.split > * { min-width: 0; } .split .scroll { margin-top: 0; }
@media (min-width: 720px) { .charts.pairs { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
@media (min-width: 900px) { .split { grid-template-columns: minmax(0, 420px) minmax(0, 1fr); } }
.bad { color: var(--bad); }
.note { color: var(--soft); font-size: 13.5px; margin: 10px 0 0; max-width: 84ch; overflow-wrap: anywhere; }
details { margin-top: 12px; }
summary { cursor: pointer; color: var(--soft); font-size: 13.5px; }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
ol.history { list-style: none; margin: 14px 0 0; padding: 0; }
ol.history li { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 12px 16px;
  margin-top: 10px; min-width: 0; }
ol.history .aside { color: var(--soft); font-size: 13px; margin-top: 4px; overflow-wrap: anywhere; }
footer { color: var(--soft); font-size: 13px; border-top: 1px solid var(--rule); padding-top: 16px;
  padding-bottom: 40px; margin-top: 44px; overflow-wrap: anywhere; }
"""
)
_DRAWINGS = """svg text { font-size: 11px; fill: var(--ink); }
svg .name, svg .row, svg .value, svg .mark { paint-order: stroke; stroke: var(--card); stroke-width: 3px;
  stroke-linejoin: round; }
svg .tick, svg .axis { fill: var(--soft); font-size: 10.5px; }
/* Two charts fill the page: drawn larger, their text stays as it is elsewhere. */
@media (min-width: 960px) { .charts.pairs svg text { font-size: 9px; }
  .charts.pairs svg .tick, .charts.pairs svg .axis { font-size: 8.5px; } }
@media (min-width: 960px) { figure.wide svg text { font-size: 7.5px; } figure.wide svg .tick { font-size: 7px; } }
@media (max-width: 640px) { figure.wide svg text, figure.wide svg .tick { font-size: 20px; } }
svg .mark { fill: var(--soft); font-size: 10.5px; }
svg .line.aim { stroke: var(--before); stroke-dasharray: 4 3; } svg .name.aim { fill: var(--soft); }
svg .beyond { fill: none; }
svg .grid { stroke: var(--grid); stroke-width: 1; }
svg .phase { stroke: var(--before); stroke-width: 1; stroke-dasharray: 2 3; }
svg .reference { stroke: var(--soft); stroke-width: 1; }
svg .line { fill: none; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
svg .way { fill: none; stroke: var(--before); stroke-width: 1.2; stroke-dasharray: 3 3; }
svg .thin { stroke-width: 1.2; } svg .thick { stroke-width: 5; stroke-linecap: round; opacity: .35; }
svg .faint { stroke: var(--before); stroke-width: 1; opacity: .7; }
svg .dense { fill: var(--before); } svg .kept { fill: var(--s1); } svg .kept2 { fill: var(--s3); }
svg .row { fill: var(--ink); } svg .value { font-weight: 600; }
svg .dot { stroke: var(--card); stroke-width: 1.5; }
""" + "\n".join(
    f"svg .line.{s}, svg .thin.{s}, svg .thick.{s} {{ stroke: var(--{s}); }} "
    f"svg .dot.{s}, svg .name.{s}, svg .value.{s} {{ fill: var(--{s}); }}"
    for s in ("s1", "s2", "s3", "s4", "s5", "s6")
)
_AFTER = """
@media (max-width: 640px) {
  main, header, footer { padding-left: 16px; padding-right: 16px; }
  header { padding-top: 22px; }
  h1 { font-size: 21px; }
  section { margin: 28px 0; }
  .tiles { grid-template-columns: repeat(2, 1fr); }
  .tile { padding: 11px 14px 12px; } .tile .value { font-size: 20px; } .tile .value.long { font-size: 16px; }
  .less { display: none; }
  .long { width: 8ch; }
  th, td.bar { white-space: normal; } tbody th { overflow-wrap: anywhere; min-width: 8ch; }
  thead th { overflow-wrap: break-word; }
  td.heat { font-size: 12px; padding: 6px 4px; } td.heat span { margin: -3px -2px; padding: 3px 2px; }
  td.bar { min-width: 40px; }
  th, td { padding: 6px 6px; } th:first-child, td:first-child { padding-left: 10px; }
  th:last-child, td:last-child { padding-right: 8px; }
}
@media print { button { display: none; } section { break-inside: avoid; }
  .scroll, .tall { overflow: visible; max-height: none; } }
"""

STYLE = _COLOURS + _BEFORE + _DRAWINGS + _AFTER
"""Of a page."""

DRAWING_STYLE = (
    _COLOURS
    + _DRAWINGS
    + """
svg { font: 11px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
svg .page { fill: var(--card); } svg .head { font-size: 13px; font-weight: 600; }
"""
)
"""Of a drawing that stands alone."""

SCRIPT = """
const root = document.documentElement, button = document.getElementById("theme");
const system = matchMedia("(prefers-color-scheme: dark)");
const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
const label = () => { button.textContent = dark() ? "Light" : "Dark"; };
button.hidden = false;
button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; label(); });
system.addEventListener("change", label);
label();
"""


def content_policy() -> str:
    """What a browser may do for the page: nothing from outside, and of scripts only the one above."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'"
