"""The files of who was paired with: private, found again, renamed, removed, and read with suspicion."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from crowline.base.errors import LocalProblem, UsageError
from crowline.base.secrets import Secret
from crowline.net.known_peers import MAX_FILE, MAX_NAME, KnownPeer, KnownPeers, check_name, usual_name
from crowline.rendezvous.role import Role


def peer(name: str, number: int = 1) -> KnownPeer:
    return KnownPeer(name, bytes([number]) * 32, Secret(os.urandom(32)), Role.JOIN, "ws://192.0.2.1")


@pytest.fixture
def known(tmp_path: Path) -> KnownPeers:
    return KnownPeers(tmp_path / "crowline")


def test_who_was_added_is_found_by_a_later_program(known: KnownPeers, tmp_path: Path) -> None:
    """By name in any case, with everything that was kept."""
    ana, ben = known.add(peer("Ana")), known.add(peer("ben", 2))
    later = KnownPeers(tmp_path / "crowline")
    assert later.all() == [ana, ben]
    assert later.get("ANA") == ana and later.by_key(ben.public_key) == ben
    assert later.by_key(bytes(32)) is None


def test_nobody_else_can_read_the_files(known: KnownPeers, tmp_path: Path) -> None:
    """Neither the secrets nor the own key, nor who is known."""
    known.add(peer("ana"))
    known.own_key()
    for path in (tmp_path / "crowline").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert "ana" not in "".join(str(path) for path in (tmp_path / "crowline").rglob("*"))


def test_a_power_failure_leaves_whole_files(
    known: KnownPeers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has its name is on the disk: neither the own key nor a record can be had a second time."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.fstat(number).st_ino))
    known.own_key()
    known.add(peer("ana"))
    files = list((tmp_path / "crowline").rglob("*.json"))
    assert len(files) == 2 and {path.stat().st_ino for path in files} <= set(synced)


def test_the_own_key_stays_the_same(known: KnownPeers, tmp_path: Path) -> None:
    """Also where several programs ask for it first, at once."""
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: KnownPeers(tmp_path / "crowline").own_key().public, range(32)))
    assert keys == {known.own_key().public}
    assert [path.name for path in (tmp_path / "crowline").iterdir()] == ["identity.json"]


def test_two_who_call_themselves_alike_get_two_names(known: KnownPeers) -> None:
    """Whoever comes again with the same key keeps the name, and replaces what was kept."""
    assert known.add(peer("ana")).name == "ana"
    assert known.add(peer("Ana", 2)).name == "Ana-2"
    assert known.add(peer("ana", 3)).name == "ana-3"
    again = known.add(peer("ana"))
    assert again.name == "ana" and known.get("ana") == again
    assert len(known.all()) == 3


def test_a_long_name_with_a_number_is_a_name_too(known: KnownPeers) -> None:
    """Where it is cut decides nothing: it is found as it was said."""
    long = "x" * 26 + "-yyyyy"
    found = [known.add(peer(long, number)).name for number in (1, 2, 3)]
    assert len(set(found)) == 3
    for name in found:
        check_name(name)
        assert known.get(name).name == name


def test_names_change_and_go(known: KnownPeers) -> None:
    """A name that is taken, that is none or that nobody has is refused."""
    ana = known.add(peer("ana"))
    known.add(peer("ben", 2))
    assert known.rename("ana", "Ana").public_key == ana.public_key
    assert known.rename("ana", "carol").name == "carol"
    with pytest.raises(UsageError, match="Somebody else"):
        known.rename("carol", "BEN")
    with pytest.raises(UsageError, match="no name"):
        known.rename("carol", "a b")
    with pytest.raises(UsageError, match="Nobody called ana"):
        known.remove("ana")
    assert known.remove("carol").public_key == ana.public_key
    assert [each.name for each in known.all()] == ["ben"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ana", "ana"),
        ("Ana's Laptop", "Ana-s-Laptop"),
        ("zoë.local", "zoë.local"),
        ("--json", "json"),
        ("../../etc/passwd", "etc-passwd"),
        ("a\x1b[31mb\u202e", "a-31mb"),
        ("\x00", ""),
        ("x" * 99, "x" * MAX_NAME),
    ],
)
def test_what_others_call_themselves_becomes_a_plain_name(text: str, expected: str) -> None:
    """Nothing that is an option, a path, or a terminal's command."""
    assert usual_name(text) == expected
    if expected:
        check_name(expected)
    if text != expected:
        with pytest.raises(UsageError):
            check_name(text)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b'{"name":"x"}', b'{"name":"", "public_key":""}', b"[" * 5000, b" " * (MAX_FILE + 1)],
    ids=lambda data: repr(data[:12]),
)
def test_a_damaged_record_hides_nobody_else(known: KnownPeers, tmp_path: Path, data: bytes) -> None:
    """It is passed over."""
    ana = known.add(peer("ana"))
    (tmp_path / "crowline" / "peers" / "other.json").write_bytes(data)
    assert known.all() == [ana]


def test_a_damaged_own_key_is_said_and_kept(known: KnownPeers, tmp_path: Path) -> None:
    """A new one would make a stranger of this computer."""
    known.own_key()
    path = tmp_path / "crowline" / "identity.json"
    path.write_bytes(b"{}")
    with pytest.raises(LocalProblem, match="cannot be read"):
        known.own_key()
    assert path.read_bytes() == b"{}"


def test_a_folder_that_cannot_be_written_is_a_local_problem(tmp_path: Path) -> None:
    """With its name."""
    (tmp_path / "file").touch()
    known = KnownPeers(tmp_path / "file")
    with pytest.raises(LocalProblem, match="cannot be written"):
        known.own_key()
    with pytest.raises(LocalProblem, match="cannot be written"):
        known.add(peer("ana"))
    assert known.all() == []
