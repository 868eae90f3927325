"""The file in which plans that worked are kept."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from crowline.net.plan_store import FILE, MAX_BYTES, PlanStore
from crowline.punch.plan_choice import NatSummary, choose_plans
from crowline.punch.plan_memory import MAX_NETWORKS, PlanMemory, name_of

PLANS = b'{"a":[1,2]}'
HOME, AWAY = "198.51.100.77", "203.0.113.9"


def loaded(folder: Path) -> PlanStore:
    store = PlanStore(folder)
    store.load()
    return store


def test_what_was_kept_is_there_the_next_time(tmp_path: Path) -> None:
    """With the same names for the same networks."""
    store = PlanStore(tmp_path / "state")
    assert store.load() == b""
    store.save(PLANS)
    again = PlanStore(tmp_path / "state")
    assert again.load() == PLANS
    assert again.key(HOME, AWAY) == store.key(HOME, AWAY)


def test_networks_have_names_that_do_not_tell_them(tmp_path: Path) -> None:
    """One for all hosts of a network, another for each direction, and another on each machine."""
    store, other = loaded(tmp_path / "one"), loaded(tmp_path / "two")
    assert store.key(HOME, AWAY) == store.key("198.51.100.1", "203.0.113.200")
    assert store.key("2001:db8::1", AWAY) == store.key("2001:db8:0:ffff::2", AWAY)
    keys = {
        store.key(HOME, AWAY),
        store.key(AWAY, HOME),
        store.key(HOME, "203.0.114.9"),
        store.key(HOME, "2001:db8::1"),
        other.key(HOME, AWAY),
    }
    assert len(keys) == 5
    assert all(len(bytes.fromhex(key)) == 16 for key in keys)


def test_the_file_is_for_this_user_and_replaced_as_a_whole(tmp_path: Path) -> None:
    """No other user reads it, and nothing else is left in the folder."""
    store = loaded(tmp_path / "state")
    store.save(PLANS)
    store.save(b"{}")
    assert [path.name for path in (tmp_path / "state").iterdir()] == [FILE]
    assert loaded(tmp_path / "state").load() == b"{}"
    if sys.platform != "win32":
        assert stat.S_IMODE((tmp_path / "state" / FILE).stat().st_mode) == 0o600


def test_the_fullest_memory_is_kept(tmp_path: Path) -> None:
    """All plans of as many pairs of networks as are remembered."""
    memory = PlanMemory()
    for number in range(MAX_NETWORKS):
        for plan in choose_plans(NatSummary(), NatSummary(), leads=True):
            memory.tried(f"{number:032}", name_of(plan.way, plan.opens))
    loaded(tmp_path).save(memory.dump())
    assert PlanMemory.load(loaded(tmp_path).load()).dump() == memory.dump()


@pytest.mark.parametrize(
    "data",
    [b"", b"nonsense", b"\xff\xfe", b'{"secret":"AA==","plans":{}}', b"[" * 5000, b" " * (MAX_BYTES + 1)],
    ids=["empty", "no JSON", "no text", "short secret", "deep", "giant"],
)
def test_a_file_that_makes_no_sense_is_as_good_as_none(tmp_path: Path, data: bytes) -> None:
    """It is replaced by the next that is kept."""
    (tmp_path / FILE).write_bytes(data)
    store = PlanStore(tmp_path)
    assert store.load() == b""
    store.save(PLANS)
    assert PlanStore(tmp_path).load() == PLANS


def test_a_folder_that_cannot_be_used_keeps_nothing(tmp_path: Path) -> None:
    """Nobody hears of that: a plan is found again without it."""
    (tmp_path / "file").write_bytes(b"in the way")
    store = loaded(tmp_path / "file")
    store.save(PLANS)
    assert store.load() == b""


def test_too_much_is_not_kept(tmp_path: Path) -> None:
    """What is there stays."""
    store = loaded(tmp_path)
    store.save(PLANS)
    store.save(b'"' + b"x" * MAX_BYTES + b'"')
    assert loaded(tmp_path).load() == PLANS
