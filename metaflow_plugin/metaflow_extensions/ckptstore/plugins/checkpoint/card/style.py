"""How the page looks, in light and in dark, and how a page of a running task renews itself."""

from __future__ import annotations

__all__ = ["RELOAD", "STYLE"]

# Every rule is below .ckpt: in a notebook the page's elements are put into the notebook's own document.
STYLE = """
html[data-ckptstore-card] { color-scheme: light dark; background: #fff; }
html[data-ckptstore-card] > body { margin: 0; }
.ckpt {
  --ground: #ffffff; --panel: #f6f7f9; --line: #dfe3e8; --ink: #1b2430; --soft: #56606e;
  --blue: #2463d1; --pale: #a8c4f2; --red: #b9302d; --amber: #8a5a00; --green: #1c7348;
  box-sizing: border-box; max-width: 1180px; margin: 0 auto; padding: 24px 28px 32px;
  background: var(--ground); color: var(--ink);
  font: 14px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif;
  text-align: left; overflow-wrap: anywhere;
}
.ckpt *, .ckpt *::before { box-sizing: border-box; }
.ckpt h1 { margin: 0; font-size: 24px; line-height: 1.25; font-weight: 650; color: inherit; }
.ckpt h2 { margin: 32px 0 10px; font-size: 16px; line-height: 1.3; font-weight: 650; color: inherit; }
.ckpt h2 small, .ckpt h3 small { font-weight: 400; font-size: 13px; color: var(--soft); margin-left: 6px; }
.ckpt h3 { margin: 0 0 8px; font-size: 13px; font-weight: 650; color: inherit; }
.ckpt p { margin: 6px 0; }
.ckpt .soft { color: var(--soft); }
.ckpt .code {
  font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: 12.5px;
}
.ckpt header .over { margin: 0 0 2px; color: var(--soft); font-size: 12.5px; }
.ckpt header .line {
  display: flex; flex-wrap: wrap; gap: 6px 14px; align-items: center; margin-top: 8px;
  color: var(--soft); font-size: 13px;
}
.ckpt .state { display: inline-flex; align-items: center; gap: 7px; font-weight: 600; color: var(--ink); }
.ckpt .state::before { content: ""; width: 9px; height: 9px; border-radius: 50%; background: var(--blue); }
.ckpt .state.finished::before { background: var(--green); }
.ckpt .state.failed::before { background: var(--red); }
.ckpt .tiles {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin: 22px 0 0; padding: 0;
}
.ckpt .tile {
  border: 1px solid var(--line); border-radius: 8px; background: var(--panel); padding: 11px 14px 12px;
}
.ckpt .tile dt { color: var(--soft); font-size: 12.5px; font-weight: 400; }
.ckpt .tile dd {
  margin: 2px 0 0; font-size: 21px; line-height: 1.25; font-weight: 600;
  font-variant-numeric: tabular-nums;
}
.ckpt .tile dd + dd { font-size: 12.5px; font-weight: 400; color: var(--soft); }
.ckpt .panel { border: 1px solid var(--line); border-radius: 8px; padding: 14px 16px; }
.ckpt .charts {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(300px, 100%), 1fr)); gap: 12px;
}
.ckpt figure { margin: 0; min-width: 0; }
.ckpt .plot {
  display: grid; grid-template-columns: auto minmax(0, 1fr); column-gap: 8px; font-size: 11.5px;
  color: var(--soft); font-variant-numeric: tabular-nums;
}
.ckpt .plot svg { display: block; width: 100%; overflow: visible; }
.ckpt .marks { position: relative; }
.ckpt .marks.y { text-align: right; }
.ckpt .marks.y span {
  display: block; position: relative; line-height: 14px; height: 14px; white-space: nowrap;
}
.ckpt .marks.x { grid-column: 2; height: 18px; margin-top: 4px; }
.ckpt .marks.x span { position: absolute; top: 0; white-space: nowrap; transform: translateX(-50%); }
.ckpt .marks.x .first { transform: none; }
.ckpt .marks.x .last { transform: translateX(-100%); }
.ckpt .grid { stroke: var(--line); stroke-width: 1; vector-effect: non-scaling-stroke; }
.ckpt .curve {
  fill: none; stroke: var(--blue); stroke-width: 1.8; stroke-linejoin: round;
  vector-effect: non-scaling-stroke;
}
.ckpt .dot {
  fill: none; stroke: var(--blue); stroke-width: 6; stroke-linecap: round;
  vector-effect: non-scaling-stroke;
}
.ckpt .lane { fill: var(--panel); }
.ckpt .blocked { fill: var(--blue); }
.ckpt .background { fill: var(--pale); }
.ckpt .bad { fill: var(--red); }
.ckpt .key {
  display: flex; flex-wrap: wrap; gap: 4px 18px; margin-top: 8px; font-size: 12.5px; color: var(--soft);
}
.ckpt .key span::before {
  content: ""; display: inline-block; width: 10px; height: 10px; margin-right: 6px; border-radius: 2px;
  background: var(--blue);
}
.ckpt .key .key-background::before { background: var(--pale); }
.ckpt .key .key-bad::before { background: var(--red); }
.ckpt .scroll { overflow: auto; border: 1px solid var(--line); border-radius: 8px; }
.ckpt .scroll.tall { max-height: 620px; }
.ckpt table {
  width: 100%; margin: 0; border-collapse: separate; border-spacing: 0; font-size: 13px; color: inherit;
}
.ckpt th {
  position: sticky; top: 0; z-index: 1; background: var(--panel); color: var(--soft); font-weight: 600;
  text-align: left; white-space: nowrap; padding: 8px 14px; border-bottom: 1px solid var(--line);
}
.ckpt td {
  vertical-align: top; text-align: left; padding: 8px 14px; border-bottom: 1px solid var(--line);
  unicode-bidi: isolate; background: var(--ground);
}
.ckpt tr:last-child td { border-bottom: 0; }
.ckpt .number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.ckpt .when { white-space: nowrap; font-variant-numeric: tabular-nums; }
.ckpt td.name { min-width: 150px; font-weight: 600; }
.ckpt td.path { min-width: 200px; }
.ckpt td.meta { min-width: 190px; }
.ckpt .tag {
  display: inline-block; margin-left: 3px; padding: 0 7px; border: 1px solid currentColor;
  border-radius: 9px; font-size: 11.5px; line-height: 17px; font-weight: 500; color: var(--soft);
  white-space: nowrap;
}
.ckpt .tag.failed, .ckpt .error { color: var(--red); }
.ckpt .tag.saving { color: var(--amber); }
.ckpt s { text-decoration-thickness: 1px; }
.ckpt .pair { display: inline-block; margin-right: 10px; font-variant-numeric: tabular-nums; }
.ckpt .pair b { font-weight: 400; color: var(--soft); }
.ckpt .advice { font-size: 17px; margin: 0 0 4px; }
.ckpt .advice b { font-weight: 650; }
@media (max-width: 640px) {
  .ckpt { padding: 18px 14px 24px; }
  .ckpt h1 { font-size: 20px; }
  .ckpt .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 8px; }
  .ckpt th, .ckpt td { padding: 7px 10px; }
  .ckpt td.meta { min-width: 340px; }
}
@media (prefers-color-scheme: dark) {
  html[data-ckptstore-card] { background: #13171c; }
  .ckpt {
    --ground: #13171c; --panel: #1b2027; --line: #303842; --ink: #e7ebf0; --soft: #a0abb8;
    --blue: #79a8ff; --pale: #35568f; --red: #ff8078; --amber: #e5b64c; --green: #5ccf95;
  }
}
@media print { .ckpt .scroll.tall { max-height: none; } }
"""

# Without scripts the page is whole, it only does not renew itself. It does so where it is a
# document of its own, served by a viewer, and more rarely the older it is: nobody tells a page
# that its task was killed. A <meta> refresh would reload a notebook that the page is shown in.
RELOAD = """
(function () {
  var page = document.documentElement;
  if (page.getAttribute("data-ckptstore-card") !== "running" || !/^http/.test(location.protocol)) return;
  var age = Date.now() - Date.parse(page.getAttribute("data-written"));
  setTimeout(function () {
    if (!document.hidden) return location.reload();
    document.addEventListener("visibilitychange", function () { location.reload(); }, { once: true });
  }, Math.min(Math.max(age / 10, 4000), 600000));
})();
"""
