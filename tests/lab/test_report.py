"""A matrix as text and as a page: what stands in them, and what a browser makes of the page."""

from __future__ import annotations

import re
import struct
import subprocess
import zlib
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from crowline.lab.matrix import Matrix, Plan, run_matrix
from crowline.lab.outcome import KINDS, Outcome
from crowline.lab.report import About, render
from crowline.lab.report_style import STYLE
from crowline.lab.table import legend, markdown_table, summary, terminal_table
from crowline.lab.trial import Trial
from needs import needs_program

NAMES = ("public", "home", "symmetric", "blocked")
ABOUT = About("Crowline through NATs", {"date": "2026-01-02"}, {"home": "Endpoint-independent mapping."})


def attempt(trial: Trial) -> Outcome:
    if "blocked" in (trial.a, trial.b):
        return Outcome("failed", reason="UDP <does> not get out")
    if trial.a == trial.b == "symmetric":
        return Outcome("relay", 60.0, None, "relay", "no direct path")
    if trial.a == trial.b == "public" and trial.number == 1:
        return Outcome("hub", 50.0, None, "hub", "too late")
    return Outcome("direct", 64.0, 100.0, "srflx", "punched")


def matrix_of(runs: int = 3, names: tuple[str, ...] = NAMES, **more: Any) -> Matrix:
    plan = Plan("crowline", "virtual", names, names, runs, parameters={"seed": 7, "rtt_ms": 40}, **more)
    return run_matrix(plan, attempt)


class Page(HTMLParser):
    """Counts tags, remembers classes and what could load something."""

    VOID = frozenset({"meta", "link", "img", "br", "hr", "input", "base"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.classes: Counter[str] = Counter()
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.loads: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        if tag not in self.VOID:
            self.open.append(tag)
        values = {name: value or "" for name, value in attributes}
        self.classes.update(values.get("class", "").split())
        self.ids += [values["id"]] if "id" in values else []
        self.targets += [values["href"]] if tag == "a" else []
        self.loads += [name for name in values if name in ("src", "srcset", "data", "action", "poster")]
        self.loads += [name for name in values if name.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_has_every_cell_and_says_it_in_words() -> None:
    """A square of letters with times; below it each pair in text, to which its cells lead."""
    page = render(matrix_of(), ABOUT)
    read = Page(page)
    assert not read.open
    assert read.classes["tip"] == 16 and len(read.targets) == 16
    assert len(read.ids) == 10 and {f"#{name}" for name in read.ids} == set(read.targets)
    for fact in ("world virtual", "seed 7", "rtt 40 ms", "runs of each pair 3", "date 2026-01-02"):
        assert f"<span>{fact}</span>" in page
    assert "<strong>D<i>2/3</i></strong><small>64</small><small>→ 100</small>" in page
    assert "UDP &lt;does&gt; not get out" in page and "<does>" not in page
    assert "<dt><b>2</b>home</dt><dd>Endpoint-independent mapping.</dd>" in page


def test_the_page_needs_nothing_but_itself() -> None:
    """No script, no image, no style sheet, no font from elsewhere; and a policy that forbids them."""
    page = render(matrix_of(), ABOUT)
    read = Page(page)
    assert not read.loads
    assert not {"script", "img", "link", "iframe", "object", "form", "base"} & read.tags.keys()
    assert "url(" not in page and "@import" not in page and "://" not in page
    assert "default-src &#x27;none&#x27;; style-src &#x27;unsafe-inline&#x27;" in page


def test_what_a_foreign_program_says_cannot_become_markup() -> None:
    """Reasons, techniques, names and parameters are text, wherever they stand."""
    evil = "\"><script>alert(1)</script><i x='"
    plan = Plan(evil, evil, (evil,), (evil,), parameters={evil: evil})
    outcome = Outcome("direct", 1.0, 2.0, evil, evil)
    page = render(Matrix(plan, {Trial(evil, evil): outcome}), About(evil, {evil: evil}, {evil: evil}))
    read = Page(page)
    assert not read.open and not read.tags["script"] and "<script" not in page


def test_the_same_matrix_gives_the_same_page() -> None:
    """Byte for byte, so that a change in a stored page is a change in the results."""
    assert render(matrix_of(), ABOUT) == render(matrix_of(), ABOUT)


def test_a_matrix_that_is_not_finished_shows_what_is_missing() -> None:
    """Cells without an attempt are marked; a page without any says so."""
    whole = matrix_of()
    part = Matrix(whole.plan, {Trial("home", "home"): Outcome("direct", 9.0)})
    assert Page(render(part, ABOUT)).classes["none"] == 15 + 1  # and one in the legend
    assert "not tried" in legend(part) and summary(part) == (
        "1 attempt, 1 pair: 100 % direct; set-up 9 ms (medians)"
    )
    assert "Nothing was tried yet." in render(Matrix(whole.plan, {}), ABOUT)
    assert summary(Matrix(whole.plan, {})) == "Nothing was tried."


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("kind", KINDS)
def test_letters_stand_out_from_every_background(kind: str) -> None:
    """Contrast of at least 4.5 to 1 (WCAG 2, AA) on the ground and on its stripes."""
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", STYLE))
    ink = luminance(colours[f"{kind}-ink"])
    for ground in (kind, f"{kind}-stripe"):
        if ground in colours:
            dark, light = sorted([ink, luminance(colours[ground])])
            assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_the_terminal_gets_times_where_they_fit() -> None:
    """Letters alone in a narrow one; numbered columns; totals of each row."""
    wide, narrow = terminal_table(matrix_of(), 80), terminal_table(matrix_of(), 34)
    assert wide.splitlines()[:3] == [
        "                 1     2     3  4  direct",
        "1 public     D* 64  D 64  D 64  X  66.7 %",
        "2 home        D 64  D 64  D 64  X  75.0 %",
    ]
    assert narrow.splitlines()[:3] == [
        "              1  2  3  4  direct",
        "1 public     D*  D  D  X  66.7 %",
        "2 home        D  D  D  X  75.0 %",
    ]
    assert max(map(len, narrow.splitlines())) <= 34 and "Numbers" not in narrow
    assert "D direct, between the outside addresses; R by a relay; X no connection; * not\n" in wide


def test_markdown_is_a_table() -> None:
    """Every line of it has as many cells as the head."""
    lines = markdown_table(matrix_of()).splitlines()
    assert lines[0] == "|  | 1 | 2 | 3 | 4 | direct |"
    assert lines[4] == "| 3 symmetric | D 64 | D 64 | R 60 | X | 50.0 % |"
    assert {line.count("|") for line in lines[:6]} == {7}


def test_rectangles_name_their_columns() -> None:
    """Where rows and columns differ, numbers would mean two things."""
    plan = Plan("crowline", "virtual", ("home",), ("public", "symmetric"))
    table = terminal_table(run_matrix(plan, attempt))
    assert table.splitlines()[:2] == ["      public  symmetric  direct", "home    D 64       D 64   100 %"]


BROWSER = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--force-device-scale-factor=1",
    "--enable-logging=stderr",
)  # fmt: skip


def browse(tmp_path: Path, page: str, *arguments: str) -> tuple[str, str]:
    """Open the page in Chromium: what it prints, and what the page's console complains about."""
    program = needs_program("chromium", "chromium-browser", "google-chrome")
    file = tmp_path / "matrix.html"
    file.write_text(page)
    profile = tmp_path / f"profile{len(list(tmp_path.iterdir()))}"
    result = subprocess.run(
        [program, *BROWSER, f"--user-data-dir={profile}", *arguments, file.as_uri()],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    return result.stdout, "\n".join(line for line in result.stderr.splitlines() if "CONSOLE" in line)


def pixels(png: bytes) -> tuple[int, int, Counter[tuple[int, int, int]]]:
    """Width, height and how often each colour occurs in an 8-bit PNG without interlacing."""
    place, data = 8, b""
    while place < len(png):
        length, kind = struct.unpack_from(">I4s", png, place)
        if kind == b"IHDR":
            width, height, _, colour = struct.unpack_from(">IIBB", png, place + 8)
        elif kind == b"IDAT":
            data += png[place + 8 : place + 8 + length]
        place += length + 12
    size = {2: 3, 6: 4}[colour]
    raw, row, counts = zlib.decompress(data), bytearray(width * size), Counter[tuple[int, int, int]]()
    for start in range(0, len(raw), width * size + 1):
        row = unfilter(raw[start], raw[start + 1 : start + 1 + width * size], row, size)
        counts.update(zip(row[0::size], row[1::size], row[2::size], strict=True))
    return width, height, counts


def unfilter(method: int, line: bytes, above: bytearray, size: int) -> bytearray:
    """One line of a PNG (RFC 2083 §6)."""
    row = bytearray(line)
    for n in range(len(row)):
        left = row[n - size] if n >= size else 0
        corner = above[n - size] if n >= size else 0
        if method == 4:
            guess = left + above[n] - corner
            near = min((left, above[n], corner), key=lambda value: abs(guess - value))
        else:
            near = (0, left, above[n], (left + above[n]) // 2)[method]
        row[n] = (row[n] + near) & 255
    return row


@pytest.mark.peer
@pytest.mark.timeout(180)
def test_a_browser_shows_the_heat_map(tmp_path: Path) -> None:
    """Chromium keeps every cell in its tree, complains about nothing and paints each kind."""
    picture = tmp_path / "matrix.png"
    page = render(matrix_of(), ABOUT)
    tree, complaints = browse(tmp_path, page, "--dump-dom")
    assert not complaints
    seen, meant = Page(tree), Page(page)
    assert seen.classes == meant.classes and seen.ids == meant.ids and seen.tags["td"] == meant.tags["td"]
    _, complaints = browse(tmp_path, page, f"--screenshot={picture}", "--window-size=700,640")
    assert not complaints
    width, height, counts = pixels(picture.read_bytes())
    assert (width, height) == (700, 640)
    # Cells are about 45 × 49 pixels; letters and rounded corners take their part.
    assert counts[0xCF, 0xE6, 0xD8] > 8 * 1000, "eight direct cells"
    assert counts[0x7C, 0x3A, 0x3F] > 7 * 1000, "seven failed cells"
    assert 500 < counts[0xF6, 0xDF, 0xA8] < 6000, "one relayed cell, its stripes, the legend, the bar"
    broken = page.replace("<h1>", '<img src="data:image/gif;base64,R0lGODlh"><h1>')
    assert "Content Security Policy" in browse(tmp_path, broken, "--dump-dom")[1], "the console is heard"
    assert counts[0xFB, 0xFB, 0xF9] > 700 * 640 / 3, "much of the page is paper"
