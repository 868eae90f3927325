"""A matrix as text: for a terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

from crowline.lab.matrix import Matrix, Plan, Tally
from crowline.lab.outcome import KINDS, Kind

LETTERS: dict[Kind, str] = {"direct": "D", "lan": "L", "relay": "R", "hub": "H", "failed": "X"}
MEANINGS: dict[Kind, str] = {
    "direct": "direct, between the outside addresses",
    "lan": "direct, without leaving the local network",
    "relay": "by a relay",
    "hub": "through the meeting point only",
    "failed": "no connection",
}
NOT_TRIED = "·"
MIXED = "*"


def terminal_table(matrix: Matrix, width: int = 80) -> str:
    """One line for each row of the matrix, with times where they fit into that many columns."""
    lines = _aligned(_grid(matrix, with_times=True))
    with_times = max(map(len, lines)) <= width
    if not with_times:
        lines = _aligned(_grid(matrix, with_times=False))
    return "\n".join([*lines, "", *wrap(legend(matrix, with_times=with_times), width)])


def markdown_table(matrix: Matrix) -> str:
    """The same as a Markdown table, with the legend below."""
    head, *rows = _grid(matrix, with_times=True)
    lines = [_markdown_row(head), "| --- |" + " ---: |" * (len(head) - 1), *map(_markdown_row, rows)]
    return "\n".join([*lines, "", legend(matrix)])


def summary(matrix: Matrix) -> str:
    """``12 attempts, 6 pairs: 83.3 % direct, 16.7 % relay; set-up 41 ms, direct 83 ms (medians)``."""
    total = matrix.total()
    if total is None:
        return "Nothing was tried."
    shares = [f"{percent(share)} {name}" for name, share in total.shares().items() if share]
    times = [
        f"{name} {milliseconds(value)}"
        for name, value in (("set-up", total.setup_ms), ("direct", total.direct_ms))
        if value is not None
    ]
    medians = f"; {', '.join(times)} (medians)" if times else ""
    attempts, pairs = _count(len(total.outcomes), "attempt"), _count(len(matrix.cells()), "pair")
    return f"{attempts}, {pairs}: {', '.join(shares)}{medians}"


def legend(matrix: Matrix, *, with_times: bool = True) -> str:
    """What the letters mean that occur."""
    tallies = [tally for _, _, tally in matrix.cells()]
    letters = [f"{LETTERS[kind]} {MEANINGS[kind]}" for kind in KINDS if any(t.kind == kind for t in tallies)]
    if any(tally.is_mixed for tally in tallies):
        letters.append(f"{MIXED} not every time")
    if len(tallies) < len(matrix.plan.pairs()):
        letters.append(f"{NOT_TRIED} not tried")
    times = " Numbers: median ms to the first byte." if with_times else ""
    return f"{'; '.join(letters)}.{times}"


def parameters_in_words(plan: Plan) -> dict[str, str]:
    """Labels and values for people: ``rtt_ms=40`` is ``rtt`` of ``40 ms``."""
    words = {}
    for name, value in plan.parameters.items():
        label = name.removesuffix("_ms")
        text = f"{value:g}" if isinstance(value, float) else str(value)
        words[label.replace("_", " ")] = text if label == name else f"{text} ms"
    return words


def percent(share: float) -> str:
    """``83.3 %``, of a share of 1."""
    return f"{share * 100:.1f} %" if 0 < share < 1 else f"{share * 100:.0f} %"


def milliseconds(value: float | None) -> str:
    """``41 ms``; a dash where nothing was measured."""
    return "–" if value is None else f"{value:.0f} ms"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _grid(matrix: Matrix, *, with_times: bool) -> list[list[str]]:
    """Head and rows; columns are numbered as the rows are where both have the same names."""
    plan = matrix.plan
    square = plan.rows == plan.columns
    head = ["", *(str(n) if square else name for n, name in enumerate(plan.columns, start=1)), "direct"]
    rows = []
    for number, row in enumerate(plan.rows, start=1):
        cells = [_cell(matrix.cell(row, column), with_times=with_times) for column in plan.columns]
        tally = matrix.row(row)
        share = percent(tally.shares()["direct"]) if tally else NOT_TRIED
        rows.append([f"{number:>{len(head[-2])}} {row}" if square else row, *cells, share])
    return [head, *rows]


def _cell(tally: Tally | None, *, with_times: bool) -> str:
    if tally is None:
        return NOT_TRIED
    mark = LETTERS[tally.kind] + (MIXED if tally.is_mixed else "")
    if not with_times or tally.kind == "failed" or tally.setup_ms is None:
        return mark
    return f"{mark} {tally.setup_ms:.0f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *cells in rows:
        numbers = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *numbers]).rstrip())
    return lines


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.strip().replace('|', '/') for cell in cells)} |"
