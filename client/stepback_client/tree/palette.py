"""The style sheet of the SVG: colours on light and on dark ground."""

STYLE = """
svg { --ground: #ffffff; --ink: #1f2328; --muted: #656d76; --line: #afb8c1; --chip: #f6f8fa;
  --edge: #d0d7de; --green: #1a7f37; --blue: #0969da; --amber: #9a6700; --red: #cf222e;
  --red-chip: #ffebe9; --on: #ffffff;
  --verified: #dafbe1; --answer: #ddf4ff; --refused: #fff8c5; }
@media (prefers-color-scheme: dark) {
  svg { --ground: #0d1117; --ink: #e6edf3; --muted: #8d96a0; --line: #484f58; --chip: #161b22;
    --edge: #30363d; --green: #3fb950; --blue: #4493f8; --amber: #d29922; --red: #f85149;
    --red-chip: #25171c; --on: #0d1117;
    --verified: #12261e; --answer: #121d2f; --refused: #272115; }
}
.ground { fill: var(--ground); }
text { font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  fill: var(--ink); white-space: pre; }
.caption { font: 600 15px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
.note, .fold { font: 11.5px system-ui, "Segoe UI", Helvetica, Arial, sans-serif;
  fill: var(--muted); }
.fold { font-style: italic; }
.id { fill: var(--muted); text-anchor: end; font-size: 11px; }
.lines path, .track { fill: none; stroke: var(--line); stroke-width: 1.5; }
.lines .way { stroke-width: 2; }
.lines .verified { stroke: var(--green); }
.lines .answer { stroke: var(--blue); }
.lines .refused { stroke: var(--amber); }
.root { fill: var(--muted); }
.chip { fill: var(--chip); stroke: var(--edge); }
.chip.struck { fill: var(--red-chip); stroke: var(--red); stroke-dasharray: 3 2; }
.step.struck { fill: var(--red); text-decoration: line-through; }
.band.verified { fill: var(--verified); }
.band.answer { fill: var(--answer); }
.band.refused { fill: var(--refused); }
.badge { fill: var(--ground); stroke-width: 1.5; }
.badge.verified { fill: var(--green); stroke: var(--green); }
.badge.answer { stroke: var(--blue); }
.badge.refused { stroke: var(--amber); }
.badge.rolled-back, .badge.illegal { stroke: var(--red); }
.badge.unfinished { stroke: var(--muted); }
.sign { font-size: 10px; text-anchor: middle; }
.sign.verified { fill: var(--on); }
.sign.answer { fill: var(--blue); }
.sign.refused { fill: var(--amber); }
.sign.rolled-back, .sign.illegal { fill: var(--red); }
.sign.unfinished { fill: var(--muted); }
"""
