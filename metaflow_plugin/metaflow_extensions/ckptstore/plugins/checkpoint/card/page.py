"""The card's page: one document of HTML that needs nothing beside itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .chart import line_chart, timeline
from .facts import CardFacts, LineageFact, SavedFact, SaveState
from .interval import recommended_interval_s
from .style import RELOAD, STYLE
from .text import NONE, clipped, count, duration, escape, instant, metadata_cell, number, size

__all__ = ["MAX_CHARTS", "MAX_LINEAGE", "MAX_ROWS", "render"]

MAX_ROWS = 500
MAX_LINEAGE = 200
MAX_CHARTS = 6
MAX_ERROR_CHARS = 300
TALL_ROWS = 16


def render(facts: CardFacts) -> str:
    """Return the page, bounded in size however much was saved, and in ASCII only.

    Metaflow's card viewer names no character set, and its client reads a card in
    the locale's. Whatever the facts hold is text on the page and never markup.
    """
    parts = (
        _header(facts),
        _tiles(facts),
        _timeline(facts),
        _charts(facts),
        _table(facts),
        _lineage(facts.lineage),
        _advice(facts),
    )
    live = f' data-ckptstore-card="{facts.state}" data-written="{escape(facts.written_on)}"'
    page = (
        f'<!doctype html><html lang="en"{live}><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Checkpoints of {escape(facts.pathspec)}</title><style>{STYLE}</style></head>"
        f'<body><main class="ckpt">{"".join(parts)}</main><script>{RELOAD}</script></body></html>\n'
    )
    return page.encode("ascii", "xmlcharrefreplace").decode("ascii")


def _header(facts: CardFacts) -> str:
    if facts.lineage:
        origin = f"loaded {_told(facts.lineage[-1], facts.pathspec)}"
    elif facts.found:
        origin = f"found {_told(facts.found, facts.pathspec)}; not loaded"
    else:
        origin = "no checkpoint was found at the start"
    return (
        '<header><p class="over">Checkpoints</p>'
        f'<h1>{escape(facts.pathspec)}</h1><div class="line">'
        f'<span class="state {facts.state}">{facts.state}</span>'
        f"<span>attempt {facts.attempt}</span>"
        f"<span>started {instant(facts.started_on)} UTC</span>"
        f"<span>as of {instant(facts.written_on)} UTC, after {duration(facts.elapsed_s)}</span>"
        f"<span>{origin}</span></div></header>"
    )


def _told(one: LineageFact, pathspec: str) -> str:
    task = "" if one.pathspec == pathspec else f" of {clipped(one.pathspec)}"
    name = f"\N{LEFT DOUBLE QUOTATION MARK}{clipped(one.name)}\N{RIGHT DOUBLE QUOTATION MARK}"
    return f"{name}{task}, attempt {one.attempt}"


def _tiles(facts: CardFacts) -> str:
    durable = [save for save in facts.saved if save.state in ("saved", "deleted")]
    states = Counter(save.state for save in facts.saved)
    others: tuple[tuple[SaveState, str], ...] = (
        ("saving", "being saved"),
        ("failed", "failed"),
        ("deleted", "deleted since"),
    )
    beside = ", ".join(f"{states[state]:,} {word}" for state, word in others if states[state])
    logical = sum(save.size for save in durable)
    stored = sum(save.stored_bytes for save in durable)
    new = sum(save.new_bytes for save in durable)
    blocked = sum(save.blocked_s or 0.0 for save in facts.saved)
    background = sum(save.background_s or 0.0 for save in facts.saved)
    share = min(blocked / facts.elapsed_s, 1.0) if facts.elapsed_s > 0 else 0.0
    tiles = (
        ("Checkpoints", f"{len(durable):,}", beside or "all durable"),
        ("Size", size(logical), "uncompressed"),
        ("New bytes", size(new), f"of {size(stored)} stored"),
        ("Deduplication", _ratio(stored, new), "stored / new bytes"),
        ("Compression", _ratio(logical, stored), "size / stored bytes"),
        ("Blocked", duration(blocked), f"{share:.1%} of the time"),
        ("Background", duration(background), "beside the step"),
    )
    return '<dl class="tiles">{}</dl>'.format(
        "".join(
            f'<div class="tile"><dt>{name}</dt><dd>{value}</dd><dd>{note}</dd></div>'
            for name, value, note in tiles
        )
    )


def _ratio(whole: int, part: int) -> str:
    if not whole:
        return NONE
    # With nothing new there is no number for it.
    return f"{whole / part:.1f}\N{MULTIPLICATION SIGN}" if part else "all shared"


def _timeline(facts: CardFacts) -> str:
    saves = [save for save in facts.saved if save.started_s is not None]
    shown = saves[-MAX_ROWS:]
    begin_s = 0.0 if len(shown) == len(saves) else shown[0].started_s or 0.0
    note = (
        "" if len(shown) == len(saves) else f"<small>the newest {len(shown)} of {len(saves):,} saves</small>"
    )
    drawn = timeline(shown, begin_s=begin_s, elapsed_s=facts.elapsed_s)
    return (
        f"<section><h2>Timeline <small>time since the attempt started</small>{note}</h2>"
        f'<div class="panel">{drawn}</div></section>'
    )


def _charts(facts: CardFacts) -> str:
    durable = [save for save in facts.saved if save.state in ("saved", "deleted")]
    values: dict[str, list[tuple[int, object]]] = {}
    for at, save in enumerate(durable, start=1):
        for key, value in save.metadata.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                values.setdefault(key, []).append((at, value))
    if not values:
        return ""
    shown = sorted(values, key=lambda key: -len(values[key]))[:MAX_CHARTS]
    left = len(values) - len(shown)
    note = f"<small>{count(left, 'more value')} not shown</small>" if left else ""
    figures = "".join(
        f'<figure class="panel"><h3>{clipped(key)}<small>last {_last(values[key])}</small></h3>'
        f"{line_chart(values[key], len(durable))}</figure>"
        for key in shown
    )
    return (
        f"<section><h2>Metadata <small>over the checkpoints</small>{note}</h2>"
        f'<div class="charts">{figures}</div></section>'
    )


def _last(points: Sequence[tuple[int, object]]) -> str:
    value = points[-1][1]
    return number(value) if isinstance(value, (int, float)) else NONE


_COLUMNS = (
    ("Name", ""),
    ("Created (UTC)", ""),
    ("Size", "number"),
    ("New bytes", "number"),
    ("Blocked", "number"),
    ("Background", "number"),
    ("Metadata", ""),
)


def _table(facts: CardFacts) -> str:
    left = len(facts.saved) - MAX_ROWS
    note = "newest first"
    if left > 0:
        note += f"; the newest {MAX_ROWS}, {left:,} older ones are left out"
    if facts.keep:
        note += f"; retention keeps {clipped(facts.keep)}, others may be gone by now"
    heading = f"<h2>Checkpoints <small>{note}</small></h2>"
    if not facts.saved:
        return f'<section>{heading}<p class="soft">Nothing was saved yet.</p></section>'
    shown = facts.saved[: -MAX_ROWS - 1 : -1]
    several = len({save.attempt for save in facts.saved} | {facts.attempt}) > 1
    rows = "".join(_row(save, several) for save in shown)
    return f"<section>{heading}{_framed('checkpoints', _COLUMNS, rows, len(shown))}</section>"


def _row(save: SavedFact, several_attempts: bool) -> str:
    tags = f' <span class="tag">attempt {save.attempt}</span>' if several_attempts else ""
    if not save.latest:
        tags += ' <span class="tag" title="never chosen at the start of a task">not latest</span>'
    if save.state != "saved":
        tags += f' <span class="tag {save.state}">{save.state}</span>'
    known = save.state in ("saved", "deleted")
    told = metadata_cell(save.metadata)
    if save.error:
        told = f'<div class="error">{clipped(save.error, MAX_ERROR_CHARS)}</div>' + (
            told if save.metadata else ""
        )
    name = f"<s>{clipped(save.name)}</s>" if save.state == "deleted" else clipped(save.name)
    version = f' title="version {escape(save.version_id)}"' if save.version_id else ""
    return (
        f'<tr class="{save.state}"><td class="name"{version}>{name}{tags}</td>'
        f'<td class="when">{instant(save.created_on)}</td>'
        f'<td class="number">{size(save.size) if known else NONE}</td>'
        f'<td class="number">{size(save.new_bytes) if known else NONE}</td>'
        f'<td class="number">{duration(save.blocked_s)}</td>'
        f'<td class="number">{duration(save.background_s)}</td>'
        f'<td class="meta">{told}</td></tr>'
    )


def _framed(kind: str, columns: Sequence[tuple[str, str]], rows: str, n_rows: int) -> str:
    heads = "".join(f'<th scope="col" class="{side}">{name}</th>' for name, side in columns)
    tall = " tall" if n_rows > TALL_ROWS else ""
    return (
        f'<div class="scroll{tall}" tabindex="0"><table class="{kind}"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


_LINEAGE_COLUMNS = (
    ("Index", "number"),
    ("Attempt", "number"),
    ("Pathspec", ""),
    ("Created (UTC)", ""),
    ("Name", ""),
    ("Metadata", ""),
)


def _lineage(lineage: Sequence[LineageFact]) -> str:
    left = len(lineage) - MAX_LINEAGE
    note = "" if left <= 0 else f"<small>the newest {MAX_LINEAGE}, {left:,} older ones are left out</small>"
    heading = f"<h2>Lineage of Loaded Checkpoint {note}</h2>"
    if not lineage:
        return f'<section class="lineage">{heading}<p class="soft"><em>no lineage found</em></p></section>'
    rows = "".join(
        f'<tr><td class="number">{index}</td><td class="number">{one.attempt}</td>'
        f'<td class="code path">{clipped(one.pathspec)}</td><td class="when">{instant(one.created_on)}</td>'
        f'<td class="name">{clipped(one.name)}</td><td class="meta">{metadata_cell(one.metadata)}</td></tr>'
        for index, one in list(enumerate(lineage))[-MAX_LINEAGE:]
    )
    framed = _framed("ancestors", _LINEAGE_COLUMNS, rows, min(len(lineage), MAX_LINEAGE))
    return f'<section class="lineage">{heading}{framed}</section>'


def _advice(facts: CardFacts) -> str:
    measured = [
        (save.blocked_s, save.background_s or 0.0, save.started_s)
        for save in facts.saved
        if save.state in ("saved", "deleted") and save.blocked_s is not None and save.started_s is not None
    ]
    heading = "<h2>Recommended save interval</h2>"
    if not measured:
        return f'<section>{heading}<p class="soft">No save was measured yet.</p></section>'
    cost_s = sum(blocked for blocked, _, _ in measured) / len(measured)
    floor_s = sum(background for _, background, _ in measured) / len(measured)
    lines = [_how_often(facts, cost_s, floor_s)]
    lines.append(
        f"A save held the step up for {duration(cost_s)} on average of {count(len(measured), 'save')}."
    )
    if floor_s > 0:
        lines[-1] += (
            f" It then took {duration(floor_s)} in the background: a shorter interval than that only makes "
            "saves wait for each other."
        )
    if len(measured) > 1:
        actual_s = (measured[-1][2] - measured[0][2]) / (len(measured) - 1)
        lines.append(f"This attempt has saved every {duration(actual_s)} on average.")
    lines.append(
        "By Young and Daly: the square root of 2 \N{MULTIPLICATION SIGN} cost of a save \N{MULTIPLICATION SIGN} "
        "mean time between failures."
    )
    said = f'<p class="advice">{lines[0]}</p>' + "".join(f'<p class="soft">{line}</p>' for line in lines[1:])
    return f'<section class="interval">{heading}<div class="panel">{said}</div></section>'


def _how_often(facts: CardFacts, cost_s: float, floor_s: float) -> str:
    def every(mtbf_s: float) -> str:
        return f"<b>{duration(max(recommended_interval_s(cost_s, mtbf_s), floor_s))}</b>"

    observed = duration(facts.observed_s)
    if facts.n_failures and facts.observed_s > 0:
        mtbf_s = facts.observed_s / facts.n_failures
        return (
            f"Save about every {every(mtbf_s)}, for {count(facts.n_failures, 'failure')} in the {observed} "
            "that are known of."
        )
    return (
        f"No failure was seen in {observed}, so how often they come is not known. "
        f"For one an hour save about every {every(3600.0)}, for one a day every {every(86400.0)}."
    )
