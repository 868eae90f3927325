"""A matrix as one HTML page that needs nothing else: no script, no font, no image, no network."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from crowline.lab.matrix import Matrix, Tally
from crowline.lab.outcome import KINDS, Kind
from crowline.lab.report_style import STYLE
from crowline.lab.table import LETTERS, MEANINGS, NOT_TRIED, milliseconds, parameters_in_words, percent

# Even a text that escaped its quoting could load nothing and run nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_NOTES = (
    "Each cell is a pair of places: the row's host opened the meeting and the column's host joined it, or "
    "the other way round where a pair was tried once and stands in the page twice. The letter says which "
    "kind of path the pair ended on, most often where there were several runs; of two kinds as frequent, the "
    "worse one. A number like 4/5 tells in how many runs.",
    "64 → 100 means: the first byte could be sent after 64 ms, on whatever path, and the first direct link "
    "was in use after 100 ms; both are medians, and counted from the moment when both sides were there.",
)


@dataclass(frozen=True, slots=True)
class About:
    """What the page says about itself. `places`: the name of each preset to its description.

    `facts`: labels and values, such as the date and the version; nothing about this machine belongs there.
    """

    title: str
    facts: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)


def render(matrix: Matrix, about: About) -> str:
    """The page. The same matrix and words give the same page, byte for byte."""
    body = "\n".join(
        [
            *_head(matrix, about),
            *_numbers(matrix),
            *_heat_map(matrix),
            *_legend(matrix),
            *(f"<p>{_text(note)}</p>" for note in _NOTES),
            *_words(matrix),
            *_places(matrix, about),
        ]
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_text(_POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(about.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _head(matrix: Matrix, about: About) -> Iterator[str]:
    plan = matrix.plan
    facts = {"world": plan.world, **parameters_in_words(plan), "runs of each pair": str(plan.runs)}
    facts |= about.facts
    shown = " · ".join(f"<span>{_text(name)} {_text(value)}</span>" for name, value in facts.items())
    yield f'<h1>{_text(about.title)}</h1>\n<p class="about">{shown}</p>'


def _numbers(matrix: Matrix) -> Iterator[str]:
    total = matrix.total()
    if total is None:
        yield "<p>Nothing was tried yet.</p>"
        return
    numbers = {"pairs": str(len(matrix.cells())), "attempts": str(len(total.outcomes))}
    numbers |= {_share_name(name): percent(share) for name, share in total.shares().items()}
    numbers |= {
        "first byte, median": milliseconds(total.setup_ms),
        "direct, median": milliseconds(total.direct_ms),
    }
    tiles = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in numbers.items())
    yield f'<dl class="numbers">{tiles}</dl>'
    yield f'<div class="bar" aria-hidden="true">{_bar(total)}</div>'


def _heat_map(matrix: Matrix) -> Iterator[str]:
    plan = matrix.plan
    heads = "".join(_column_head(number, name) for number, name in enumerate(plan.columns, start=1))
    yield '<h2>Who reaches whom</h2>\n<div class="scroll"><table class="heat">'
    heads += '<th scope="col" class="total"><span>direct</span></th>'
    yield f'<thead><tr><td class="corner"></td>{heads}</tr></thead><tbody>'
    for number, row in enumerate(plan.rows, start=1):
        yield f'<tr><th scope="row">{_text(row)}<b>{number}</b></th>'
        for place, column in enumerate(plan.columns):
            yield _cell(matrix, row, column, in_right_half=place >= len(plan.columns) / 2)
        tally = matrix.row(row)
        share = percent(tally.shares()["direct"]) if tally else NOT_TRIED
        yield f'<td class="total">{share}</td></tr>'
    yield "</tbody></table></div>"


def _column_head(number: int, name: str) -> str:
    return f'<th scope="col"><span>{_text(name)}</span><b>{number}</b></th>'


def _cell(matrix: Matrix, row: str, column: str, *, in_right_half: bool) -> str:
    pair, tally = matrix.as_tried(row, column), matrix.cell(row, column)
    if pair is None or tally is None:
        return f'<td class="none">{NOT_TRIED}</td>'
    host, guest = pair
    letter = f"<strong>{LETTERS[tally.kind]}{_often(tally)}</strong>"
    tip = f'<span class="tip{" left" if in_right_half else ""}">{_in_words(host, guest, tally)}</span>'
    link = f'<a href="#{_anchor(host, guest)}">{letter}{_times(tally)}</a>'
    return f'<td class="{tally.kind}">{link}{tip}</td>'


def _legend(matrix: Matrix) -> Iterator[str]:
    seen = {outcome.kind for outcome in matrix.outcomes.values()}
    items = [
        f'<li><span class="{kind}">{LETTERS[kind]}</span>{_text(MEANINGS[kind])}</li>'
        for kind in KINDS
        if kind in seen
    ]
    if len(matrix.cells()) < len(matrix.plan.pairs()):
        items.append(f'<li><span class="none">{NOT_TRIED}</span>not tried</li>')
    yield f'<ul class="legend">{"".join(items)}</ul>'


def _words(matrix: Matrix) -> Iterator[str]:
    """Every pair again, in text: for print, for screen readers, for those who search the page."""
    columns = ("host", "joins", "", "path", "first byte", "direct", "by", "why")
    heads = "".join(f'<th scope="col">{name}</th>' for name in columns)
    yield '<h2 class="break">All pairs in words</h2>\n<table class="words">'
    yield f"<thead><tr>{heads}</tr></thead><tbody>"
    for host, guest, tally in matrix.cells():
        mark = f'<span class="mark {tally.kind}">{LETTERS[tally.kind]}</span>'
        yield (
            f'<tr id="{_anchor(host, guest)}"><td>{_text(host)}</td><td>{_text(guest)}</td><td>{mark}</td>'
            f'<td>{_text(_counts(tally))}</td><td class="number">{milliseconds(tally.setup_ms)}</td>'
            f'<td class="number">{milliseconds(tally.direct_ms)}</td><td>{_text(tally.technique)}</td>'
            f'<td class="why">{_text(tally.reason)}</td></tr>'
        )
    yield "</tbody></table>"


def _places(matrix: Matrix, about: About) -> Iterator[str]:
    names = list(dict.fromkeys([*matrix.plan.rows, *matrix.plan.columns]))
    described = [(number, name) for number, name in enumerate(names, start=1) if about.places.get(name)]
    if not described:
        return
    yield '<h2>The places</h2>\n<dl class="places">'
    for number, name in described:
        yield f"<dt><b>{number}</b>{_text(name)}</dt><dd>{_text(about.places[name])}</dd>"
    yield "</dl>"


def _in_words(host: str, guest: str, tally: Tally) -> str:
    lines = [f"<strong>{_text(host)} ⇄ {_text(guest)}</strong>", _text(_counts(tally))]
    lines.append(f"first byte {milliseconds(tally.setup_ms)}, direct {milliseconds(tally.direct_ms)}")
    if tally.technique not in ("", tally.kind):
        lines.append(f"by {_text(tally.technique)}")
    if tally.reason:
        lines.append(_text(tally.reason))
    return "<br>".join(lines)


def _counts(tally: Tally) -> str:
    """``direct``, or ``4 direct, 1 failed`` where the runs differ."""
    if not tally.is_mixed:
        return tally.kind
    return ", ".join(f"{count} {kind}" for kind, count in tally.counts.items())


def _often(tally: Tally) -> str:
    """``4/5`` where the runs differ."""
    return f"<i>{tally.counts[tally.kind]}/{len(tally.outcomes)}</i>" if tally.is_mixed else ""


def _times(tally: Tally) -> str:
    if tally.kind == "failed" or tally.setup_ms is None:
        return ""
    direct = f"<small>→ {tally.direct_ms:.0f}</small>" if tally.direct_ms is not None else ""
    return f"<small>{tally.setup_ms:.0f}</small>{direct}"


def _bar(total: Tally) -> str:
    kinds: list[Kind] = [kind for kind in KINDS if total.share(kind)]
    return "".join(f'<i class="{kind}" style="width:{total.share(kind) * 100:.2f}%"></i>' for kind in kinds)


def _share_name(name: str) -> str:
    return {"hub": "meeting point only", "relay": "by relay"}.get(name, name)


def _anchor(host: str, guest: str) -> str:
    """An identifier of the pair's row; names of presets are words with dashes."""
    return _text(f"{host}--{guest}".replace(" ", "_"))


def _text(value: str) -> str:
    return html.escape(value, quote=True)
