"""The matrix engine with a fake world: which pairs, spread over workers, stopped and taken up again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from crowline.base.errors import LocalProblem, UsageError
from crowline.lab.journal import Journal
from crowline.lab.matrix import Matrix, Plan, Tally, choose, run_matrix
from crowline.lab.outcome import Outcome
from crowline.lab.trial import Trial

NAMES = ("public", "home", "symmetric")


def fake_attempt(trial: Trial) -> Outcome:
    """Two symmetric sides need the relay; every third run of anything fails."""
    if trial.number == 2:
        return Outcome("failed", reason="the third time")
    if trial.a == trial.b == "symmetric":
        return Outcome("relay", 60.0, None, "relay", "no direct path")
    return Outcome("direct", 40.0 + trial.number, 80.0 + trial.number, "srflx", "punched")


def dying_attempt(trial: Trial) -> Outcome:
    os._exit(7)


def raising_attempt(trial: Trial) -> Outcome:
    raise LocalProblem("The disk is full.", hint="Empty it.")


@dataclass(frozen=True)
class SlowAttempt:
    """Announces itself in a folder, and takes back what it made when it is stopped."""

    folder: Path

    def __call__(self, trial: Trial) -> Outcome:
        mark = self.folder / f"{trial.a}-{trial.b}"
        mark.touch()
        try:
            time.sleep(60)
        finally:
            mark.unlink()
        return Outcome("direct")


def plan(*, rows: tuple[str, ...] = NAMES, columns: tuple[str, ...] = NAMES, **more: object) -> Plan:
    options = {"runs": 1, "parameters": {"seed": 1}, **more}
    return Plan("crowline", "fake", rows, columns, **options)  # type: ignore[arg-type]


def test_a_pair_is_tried_once_and_stands_twice() -> None:
    """Equal rows and columns: the half of the square with its diagonal; both halves show it."""
    square = plan()
    assert square.pairs() == [
        ("public", "public"), ("public", "home"), ("public", "symmetric"),
        ("home", "home"), ("home", "symmetric"), ("symmetric", "symmetric"),
    ]  # fmt: skip
    matrix = run_matrix(square, fake_attempt)
    assert matrix.cell("symmetric", "public") == matrix.cell("public", "symmetric") is not None
    assert [len(plan(both_ways=True).pairs()), len(plan(rows=("home",)).pairs())] == [9, 3]


def test_first_runs_of_all_pairs_come_before_second_ones() -> None:
    """A run that is stopped early has something to say about every pair."""
    trials = plan(runs=2).trials()
    assert [trial.number for trial in trials] == [0] * 6 + [1] * 6


@pytest.mark.parametrize("jobs", [1, 3])
def test_every_attempt_is_made_by_however_many_workers(jobs: int) -> None:
    """Workers change the order in which results come, and nothing in the matrix."""
    seen: list[Trial] = []
    matrix = run_matrix(
        plan(runs=3), fake_attempt, jobs=jobs, watch=lambda trial, outcome: seen.append(trial)
    )
    assert sorted(seen) == sorted(plan(runs=3).trials())
    assert matrix == Matrix(plan(runs=3), {trial: fake_attempt(trial) for trial in seen})
    cell = matrix.cell("home", "symmetric")
    assert cell is not None and cell.counts == {"direct": 2, "failed": 1}
    assert (cell.kind, cell.is_mixed, cell.setup_ms, cell.direct_ms) == ("direct", True, 40.5, 80.5)
    assert (cell.technique, cell.reason) == ("srflx", "punched")


def test_shares_and_fields_add_up() -> None:
    """What JSON says about the whole is what was counted."""
    matrix = run_matrix(plan(runs=3), fake_attempt)
    fields = json.loads(json.dumps(matrix.to_fields()))
    assert (fields["attempts"], fields["program"], fields["world"]) == (18, "crowline", "fake")
    shares = [fields[kind] for kind in ("direct", "relay", "hub", "failed")]
    assert shares == [round(10 / 18, 6), round(2 / 18, 6), 0, round(6 / 18, 6)]
    assert len(fields["pairs"]) == 6 and fields["pairs"][-1]["counts"] == {"relay": 2, "failed": 1}
    row = matrix.row("symmetric")
    assert row is not None and row.counts == {"direct": 4, "relay": 2, "failed": 3}


def test_of_two_kinds_as_frequent_the_worse_one_counts() -> None:
    """A pair that works half of the time is not shown as one that works."""
    tally = Tally((Outcome("direct", 1.0), Outcome("failed"), Outcome("relay", 2.0), Outcome("failed")))
    assert tally.kind == "failed"
    assert Tally((Outcome("direct", 1.0), Outcome("relay", 2.0))).kind == "relay"


def test_seeds_are_the_attempts_own() -> None:
    """The same attempt of the same run has the same seed, whatever else is run; no two share one."""
    seeds = {trial.seed(5) for trial in plan(runs=2).trials()}
    assert len(seeds) == 12 and all(0 <= seed < 1 << 63 for seed in seeds)
    assert Trial("home", "home").seed(5) == Trial("home", "home").seed(5) != Trial("home", "home").seed(6)


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path) -> None:
    """What the state knows is not done again, also by a plan with more runs or fewer pairs."""
    path, small = tmp_path / "folder" / "state", plan(rows=("home",))
    with Journal(path, small.about()) as journal:
        run_matrix(small, fake_attempt, journal=journal)
    seen: list[Trial] = []
    with Journal(path, plan(runs=2).about()) as journal:
        assert len(journal.outcomes) == 3
        matrix = run_matrix(
            plan(runs=2), fake_attempt, journal=journal, watch=lambda trial, outcome: seen.append(trial)
        )
    assert len(matrix.outcomes) == 12 and len(seen) == 12 - 2  # "home" × "public" is another way round here
    with Journal(path, plan().about()) as journal:
        assert len(journal.outcomes) == 13


def test_half_a_line_is_dropped_and_written_anew(tmp_path: Path) -> None:
    """A process that was killed while writing costs one attempt, and nothing that follows is glued to it."""
    path, about = tmp_path / "state", plan().about()
    with Journal(path, about) as journal:
        journal.add(Trial("a", "b"), Outcome("direct", 1.0))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"a":"a","b":"c","n":0,"outc')
    with Journal(path, about) as journal:
        assert list(journal.outcomes) == [Trial("a", "b")]
        journal.add(Trial("a", "d"), Outcome("relay"))
    with Journal(path, about) as journal:
        assert list(journal.outcomes) == [Trial("a", "b"), Trial("a", "d")]
    path.write_bytes(whole[:20])
    with Journal(path, about) as journal:
        assert not journal.outcomes


@pytest.mark.parametrize(
    "line",
    ["[]", "{}", "null", "\x00", '{"a":1,"b":2,"n":"x","outcome":{}}', '{"a":"a","b":"b","n":0,"outcome":3}'],
)
def test_lines_of_somebody_else_are_skipped(tmp_path: Path, line: str) -> None:
    """A state file with strange lines is read as far as it makes sense."""
    path, about = tmp_path / "state", plan().about()
    with Journal(path, about):
        pass
    path.write_text(path.read_text() + line + '\n{"a":"a","b":"b","n":1,"outcome":{"kind":"hub"}}\n')
    with Journal(path, about) as journal:
        assert journal.outcomes == {Trial("a", "b", 1): Outcome("hub")}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("notes of mine", "not the state of a run"),
        ("notes of mine\n", "not the state of a run"),
        ('{"v":1}\n', "not the state of a run"),
        ('{"v":1,"about":{"seed":2}}\n', "other parameters"),
    ],
)
def test_a_file_of_another_run_is_not_touched(tmp_path: Path, content: str, sentence: str) -> None:
    """Neither mixed with other parameters nor overwritten."""
    path = tmp_path / "state"
    path.write_text(content)
    with pytest.raises(UsageError, match=sentence), Journal(path, plan().about()):
        pass
    assert path.read_text() == content


def test_a_fresh_start_forgets_what_was_done(tmp_path: Path) -> None:
    """Also a run with other parameters, but never a file that is no state."""
    path = tmp_path / "state"
    with Journal(path, {"seed": 1}) as journal:
        journal.add(Trial("a", "b"), Outcome("direct"))
    with Journal(path, {"seed": 2}, fresh=True) as journal:
        assert not journal.outcomes
    with Journal(path, {"seed": 2}) as journal:
        assert not journal.outcomes
    path.write_text("notes of mine\n")
    with pytest.raises(UsageError, match="not the state of a run"), Journal(path, {}, fresh=True):
        pass
    assert path.read_text() == "notes of mine\n"


def test_two_runs_do_not_write_one_state(tmp_path: Path) -> None:
    """The second one is told so."""
    with (
        Journal(tmp_path / "state", {}),
        pytest.raises(LocalProblem, match="Another run"),
        Journal(tmp_path / "state", {}),
    ):
        pass


def test_a_state_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    """A folder in the file's place."""
    with pytest.raises(LocalProblem, match="state file cannot be used"), Journal(tmp_path, {}):
        pass


@pytest.mark.parametrize(
    ("attempt", "sentence"),
    [
        (raising_attempt, "The disk is full"),
        (dying_attempt, r"worker of the laboratory died \(exit code 7\)"),
    ],
)
def test_what_goes_wrong_in_a_worker_ends_the_run(attempt: Callable[[Trial], Outcome], sentence: str) -> None:
    """An exception keeps its sentence; a dead process is noticed."""
    with pytest.raises(LocalProblem, match=sentence) as caught:
        run_matrix(plan(), attempt, jobs=2)
    assert caught.value.hint


SLOW_RUN = """
import sys
from pathlib import Path
from test_matrix import SlowAttempt, plan
from crowline.lab.matrix import run_matrix
if __name__ == "__main__":
    try:
        run_matrix(plan(), SlowAttempt(Path(sys.argv[1])), jobs=2)
    except KeyboardInterrupt:
        sys.exit(130)
"""


def test_an_interrupted_run_takes_its_workers_along(tmp_path: Path) -> None:
    """Ctrl-C reaches the whole group; each worker unwinds what it had built, and none says anything."""
    script, folder = tmp_path / "slow.py", tmp_path / "marks"
    folder.mkdir()
    script.write_text(SLOW_RUN)
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder)],
        start_new_session=True,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths},
    )
    try:
        deadline = time.monotonic() + 20
        while len(list(folder.iterdir())) < 2:
            assert process.poll() is None and time.monotonic() < deadline, "it does not start"
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        _, complaints = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, complaints, list(folder.iterdir())) == (130, b"", [])


def test_presets_are_chosen_by_name() -> None:
    """None means all; a typo is told with what there is."""
    assert choose([], NAMES) == NAMES
    assert choose(["home", "public", "home"], NAMES) == ("home", "public")
    with pytest.raises(UsageError, match="hom is no preset") as caught:
        choose(["hom"], NAMES)
    assert "public, home, symmetric" in caught.value.hint


@pytest.mark.parametrize("wrong", [{"runs": 0}, {"runs": 1001}, {"rows": ()}], ids=str)
def test_a_senseless_plan_is_refused(wrong: dict[str, object]) -> None:
    """Nothing to do, or too much of it."""
    with pytest.raises(UsageError):
        plan(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("jobs", [0, 65])
def test_a_senseless_number_of_jobs_is_refused(jobs: int) -> None:
    """At least one worker, and not more than a machine has room for."""
    with pytest.raises(UsageError, match="jobs"):
        run_matrix(plan(), fake_attempt, jobs=jobs)
