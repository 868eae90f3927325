"""The laboratory's commands as people and scripts run them, in the virtual world."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from crowline.cli import main
from crowline.lab.presets import PRESETS

CROWLINE = [sys.executable, "-m", "crowline", "lab"]
PATIENCE = 100  # seconds for a command
PAIRS = len(PRESETS) * (len(PRESETS) + 1) // 2


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CROWLINE", "XDG_"))}
    return {**kept, "HOME": str(home), "COLUMNS": "200"}


def lab(home: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit code and what the command said on standard output and standard error."""
    result = subprocess.run(
        [*CROWLINE, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=home,
        env=environment(home),
        check=False,
    )
    assert "Traceback" not in result.stderr, result.stderr
    return result.returncode, result.stdout, result.stderr


def objects(text: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in text.splitlines()]
    assert all(each["v"] == 1 for each in found)
    return found


def test_the_virtual_matrix_of_all_presets_connects_everybody(tmp_path: Path) -> None:
    """Every pair ends on some path, and those whose best path is known end on that one."""
    code, out, err = lab(
        tmp_path, "matrix", "--runs", "2", "--json", "--html", "matrix.html", "--markdown", "matrix.md"
    )
    assert (code, err) == (0, "")
    *attempts, matrix = objects(out)
    assert len(attempts) == 2 * PAIRS and {each["t"] for each in attempts} == {"attempt"}
    assert matrix["t"] == "matrix" and len(matrix["pairs"]) == PAIRS
    assert matrix["failed"] == 0 and sum(
        matrix[kind] for kind in ("direct", "relay", "hub")
    ) == pytest.approx(1)
    kinds = {(pair["a"], pair["b"]): pair["kind"] for pair in matrix["pairs"]}
    assert {kinds["public", name] for name in ("home", "symmetric", "cgn", "mobile")} == {"direct"}
    assert kinds["home", "home"] == kinds["home", "cgn"] == "direct"
    assert kinds["symmetric", "symmetric"] == kinds["symmetric", "udp-blocked"] == "relay"
    assert kinds["home", "udp-blocked"] == "direct"
    page, table = (tmp_path / "matrix.html").read_text(), (tmp_path / "matrix.md").read_text()
    assert page.count('<span class="tip') == len(PRESETS) ** 2 and str(tmp_path) not in page + table
    assert table.startswith("# crowline through every kind of NAT") and "seed 1, rtt 40 ms" in table


def test_the_same_seed_gives_the_same_matrix(tmp_path: Path) -> None:
    """With one job or with several; the state of a finished run is not kept."""
    wishes = ("matrix", "--presets", "home,symmetric,mobile", "--runs", "2", "--seed", "4", "--json")
    last = [objects(lab(tmp_path, *wishes, "--jobs", jobs)[1])[-1] for jobs in ("1", "3")]
    assert last[0] == last[1]
    assert not list(tmp_path.rglob("*.jsonl"))


def test_people_get_a_table_and_one_line(tmp_path: Path) -> None:
    """On standard output, so that it can be kept; the columns are what was asked for."""
    code, out, _ = lab(
        tmp_path, "matrix", "--presets", "symmetric", "--against", "public,symmetric", "--runs", "1"
    )
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[:2]] == ["public", "symmetric"]
    assert "2 attempts, 2 pairs: 50.0 % direct, 50.0 % relay" in out


def test_a_stopped_matrix_goes_on_where_it_was(tmp_path: Path) -> None:
    """Ctrl-C ends with 130 and a sentence; the same command does only what is missing."""
    wishes = ["matrix", "--runs", "60", "--state", "state.jsonl", "--jobs", "2", "--json"]
    process = subprocess.Popen(
        [*CROWLINE, *wishes],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment(tmp_path),
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        for _ in range(10):
            assert process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert err.startswith("  Stopped after ") and err.count("\n") == 1, err
    lines = [json.loads(line) for line in (tmp_path / "state.jsonl").read_text().splitlines()[1:]]
    assert 10 <= len(lines) < 60 * PAIRS
    first_runs = sum(line["n"] == 0 for line in lines)
    wishes[wishes.index("60")] = "1"
    code, out, _ = lab(tmp_path, *wishes)
    assert code == 0 and len(objects(out)) - 1 == PAIRS - first_runs


def test_a_run_that_is_at_work_is_left_alone(tmp_path: Path) -> None:
    """A second one with the same state ends at once with a sentence and exit code 8."""
    wishes = ("matrix", "--runs", "1000", "--state", "state.jsonl", "--jobs", "1", "-q")
    first = subprocess.Popen([*CROWLINE, *wishes], cwd=tmp_path, env=environment(tmp_path))
    try:
        deadline = time.monotonic() + PATIENCE
        while not (tmp_path / "state.jsonl").exists() or not (tmp_path / "state.jsonl").stat().st_size:
            assert first.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        code, _, err = lab(tmp_path, *wishes)
    finally:
        first.kill()
        first.wait()
    assert code == 8 and "Another run is at work" in err


@pytest.mark.parametrize(
    ("wishes", "code", "sentence"),
    [
        (["matrix", "--presets", "hom"], 2, "hom is no preset"),
        (["matrix", "--peer", "peer.py"], 2, "cannot run in virtual time"),
        (["matrix", "--places", "nowhere.toml"], 8, "nowhere.toml cannot be read"),
        (["matrix", "--html", "nowhere/page.html"], 8, "its folder is not there"),
        (["matrix", "--rtt", "-1"], 2, "--rtt"),
        (["matrix", "--world", "kernel", "--peer", "nowhere.py"], 8, "There is no peer script nowhere.py"),
        (["selftest", "--presets", "hom"], 2, "hom is no preset"),
        (["mtrix"], 2, "No such command"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_end_with_a_sentence(tmp_path: Path, wishes: list[str], code: int, sentence: str) -> None:
    """The exit codes of every other command."""
    ended, out, err = lab(tmp_path, *wishes)
    assert (ended, out) == (code, "") and sentence in err


def test_places_of_ones_own_stand_beside_the_presets(tmp_path: Path) -> None:
    """A TOML file describes them; the page repeats their summary."""
    (tmp_path / "places.toml").write_text(
        '[office]\nsummary = "The box in the office"\n[[office.nats]]\nmapping = "address-dependent"\n'
        'filtering = "address-dependent"\nallocation = { kind = "random" }\n'
    )
    wishes = ("--places", "places.toml", "--presets", "office,public", "--html", "page.html", "--runs", "1")
    code, out, _ = lab(tmp_path, "matrix", *wishes)
    assert code == 0 and "1 office" in out and "3 attempts, 3 pairs" in out
    assert "The box in the office" in (tmp_path / "page.html").read_text()


def test_the_selftest_proves_every_preset(tmp_path: Path) -> None:
    """In virtual time; one object for each place and one at the end."""
    code, out, err = lab(tmp_path, "selftest", "--json")
    assert (code, err) == (0, "")
    *places, end = objects(out)
    assert [place["preset"] for place in places] == list(PRESETS)
    assert all(place["passed"] and place["world"] == "virtual" for place in places)
    assert (end["t"], end["places"], end["problems"]) == ("selftest", len(PRESETS), [])
    code, _, err = lab(tmp_path, "selftest", "--presets", "symmetric")
    assert code == 0 and "✓ symmetric" in err and "mapping APD, filtering APD, ports random" in err


def test_the_population_ends_with_the_shares(tmp_path: Path) -> None:
    """One object with the shares of 1; the same seed gives the same, with however many jobs."""
    wishes = ("population", "--pairs", "60", "--seed", "3", "--json")
    results = [lab(tmp_path, *wishes, "--jobs", jobs) for jobs in ("1", "2")]
    assert results[0] == results[1]
    code, out, err = results[0]
    assert (code, err) == (0, "")
    last = objects(out)[-1]
    assert (last["t"], last["pairs"]) == ("population", 60)
    assert last["direct"] + last["relay"] + last["failed"] == pytest.approx(1)
    assert 0.85 < last["direct"] < 1
    low, high = last["confidence"]["direct"]
    assert low < last["direct"] < high


def test_the_population_can_be_another_one(tmp_path: Path) -> None:
    """Weights of the user's, also for places of the user's; for people in words."""
    (tmp_path / "places.toml").write_text("[office]\n")
    (tmp_path / "weights.toml").write_text(
        'title = "Offices"\n[[classes]]\nname = "all of us"\nweight = 1\nplace = "office"\n'
    )
    files = ("--weights", "weights.toml", "--places", "places.toml")
    code, out, _ = lab(tmp_path, "population", "--pairs", "10", *files)
    assert code == 0 and out.startswith("Offices: 10 pairs, seed 1")
    assert "direct                            100 %  [72.2 % … 100 %]" in out
    code, _, err = lab(tmp_path, "population", "--pairs", "10", *files[:2])
    assert code == 2 and "office is no place of the laboratory" in err


@pytest.mark.parametrize("command", ["matrix", "selftest"])
def test_without_root_the_sentence_says_what_still_works(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The kernel world asks for root, and names the virtual one."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SystemExit) as ended:
        main(["lab", command, "--world", "kernel"])
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (8, "")
    assert "The kernel world cannot be built: this is not root." in said.err
    assert "The virtual world works everywhere" in said.err


def test_help_of_the_group_does_not_import_the_laboratory() -> None:
    """It names every command; the large modules stay where they are."""
    program = (
        "import sys\nfrom crowline.cli import main\n"
        "try:\n    main(['lab', '--help'])\nexcept SystemExit:\n    pass\n"
        "print([name for name in sys.modules if name.startswith(('crowline.lab', 'crowline.api', 'rich'))])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    *said, modules = result.stdout.splitlines()
    assert modules == "[]"
    for verb in ("run", "shell", "matrix", "population", "selftest", "clean"):
        assert any(line.split()[:1] == [verb] for line in said)
