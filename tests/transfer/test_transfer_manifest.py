"""An offer is checked as a whole before anybody acts on it."""

from __future__ import annotations

import sys
import tracemalloc

import msgspec
import pytest

from crowline.base.errors import MalformedMessage
from crowline.transfer import manifest as manifest_module
from crowline.transfer.manifest import (
    File,
    Folder,
    Item,
    Manifest,
    ManifestBuilder,
    UnacceptableManifest,
    checked_manifest,
)
from crowline.transfer.messages import (
    ENTRIES_FRAME,
    GREETING,
    HEADER_BYTES,
    VERSION,
    Entries,
    FrameType,
    MalformedTransfer,
    Offer,
    decode,
    offer_frames,
)
from crowline.transfer.names import UnsafeName


def file(path: str, size: int = 1, mode: int = 0o644) -> File:
    return File(path, size, mode)


def test_a_tree_is_accepted_as_it_is() -> None:
    """Folders, files in them, and files beside them make a manifest."""
    folders = [Folder("notes", 0o755), Folder("notes/empty", 0o700)]
    files = [file("notes/a.txt", 3), file("b.txt", 4)]
    manifest = checked_manifest(folders, files)
    assert manifest == Manifest(tuple(folders), tuple(files))
    assert manifest.total == 7
    assert manifest.items() == [Item("notes", True, 1, 3), Item("b.txt", False, 1, 4)]


@pytest.mark.parametrize(
    ("folders", "files"),
    [
        ([], ["A", "a"]),
        ([], ["caf\u00e9", "cafe\u0301"]),
        (["n"], ["N"]),
        (["n", "n"], []),
        (["n", "N"], ["n/a", "N/b"]),
        (["n"], ["n/x", "n/X"]),
    ],
)
def test_f1_twins_in_one_offer_are_refused(folders: list[str], files: list[str]) -> None:
    """Two names that one file system takes for one cannot both be written."""
    with pytest.raises(UnacceptableManifest):
        checked_manifest([Folder(path, 0o755) for path in folders], [file(path) for path in files])


@pytest.mark.parametrize(
    ("folders", "files"), [([], ["n/a"]), (["n/m"], []), (["n"], ["N/a"]), ([], ["a", "a/b"])]
)
def test_a_file_outside_the_offered_folders_is_refused(folders: list[str], files: list[str]) -> None:
    """Every folder is offered before what is in it; a file is nobody's folder."""
    with pytest.raises(UnacceptableManifest):
        checked_manifest([Folder(path, 0o755) for path in folders], [file(path) for path in files])


def test_f1_a_hostile_name_anywhere_refuses_the_offer() -> None:
    """One bad name is enough."""
    with pytest.raises(UnsafeName):
        checked_manifest([Folder("n", 0o755)], [file("n/ok"), file("n/../../x")])


def test_f3_too_many_entries_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cap counts folders and files together."""
    monkeypatch.setattr(manifest_module, "MAX_ENTRIES", 3)
    checked_manifest([Folder("n", 0o755)], [file("n/a"), file("n/b")])
    with pytest.raises(UnacceptableManifest):
        checked_manifest([Folder("n", 0o755)], [file("n/a"), file("n/b"), file("n/c")])


def test_f3_names_that_are_too_long_altogether_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory that an offer takes is bounded by its names, too."""
    monkeypatch.setattr(manifest_module, "MAX_NAMES", 2 * sys.getsizeof("a" * 5))
    checked_manifest([], [file("a" * 5), file("b" * 5)])
    with pytest.raises(UnacceptableManifest, match="names"):
        checked_manifest([], [file("a" * 5), file("b" * 6)])


@pytest.mark.parametrize("letter", ["a", "\u00e9", "\u4e2d", "\u0390", "\U0001f600"])
def test_f3_no_offer_takes_more_memory_than_its_cap_says(
    letter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured with the letters that are widest in memory, and that grow when they are compared."""
    monkeypatch.setattr(manifest_module, "MAX_NAMES", 8 << 20)
    deep = "/".join(["x" * 250] * 15)
    folders = [Folder(deep[: 251 * depth - 1], 0o755) for depth in range(1, 16)]
    tracemalloc.start()
    try:
        builder = ManifestBuilder()
        builder.add(folders, [])
        with pytest.raises(UnacceptableManifest, match="names"):
            for number in range(manifest_module.MAX_ENTRIES):
                builder.add([], [file(f"{deep}/{letter}{number}")])
        assert builder.count < manifest_module.MAX_ENTRIES
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_f4_sizes_beyond_any_disk_are_refused() -> None:
    """Sizes that overflow together are refused although each one fits."""
    with pytest.raises(UnacceptableManifest):
        checked_manifest([], [file("a", 2**62), file("b", 2**62)])


@pytest.mark.parametrize("mode", [-1, 0o1000, 0o4755, 0o2755, 0o100644])
def test_f3_special_mode_bits_do_not_parse(mode: int) -> None:
    """Set-user-id, set-group-id, sticky and file-type bits are refused on the wire."""
    payload = msgspec.msgpack.encode({"folders": [], "files": [["a", 1, mode]]})
    with pytest.raises(MalformedTransfer):
        decode(FrameType.ENTRIES, payload)


@pytest.mark.parametrize("size", [-1, 2**63, 2**64 - 1, 1.5, "1", None])
def test_an_impossible_size_does_not_parse(size: object) -> None:
    """A size is an integer that a file can have."""
    payload = msgspec.msgpack.encode({"folders": [], "files": [["a", size, 0o644]]})
    with pytest.raises(MalformedTransfer):
        decode(FrameType.ENTRIES, payload)


def test_f7_names_obeyed_unasked_are_told_at_the_top_level_only() -> None:
    """`.bashrc` in the target folder matters; `project/.gitignore` does not."""
    manifest = checked_manifest(
        [Folder("project", 0o755), Folder(".ssh", 0o700)],
        [file("project/.gitignore"), file(".ssh/authorized_keys"), file(".bashrc"), file("a")],
    )
    assert manifest.unasked() == [".ssh", ".bashrc"]


def test_a_hundred_thousand_files_travel_in_bounded_frames() -> None:
    """The manifest is split, every part is small, and the parts make up the whole."""
    folders = tuple(Folder(f"folder-{i}", 0o755) for i in range(1000))
    files = tuple(file(f"folder-{i % 1000}/a rather ordinary name {i}.jpg", i) for i in range(99_000))
    manifest = Manifest(folders, files)
    greeting, *frames = offer_frames(manifest)
    assert greeting == GREETING
    offer, *parts = [decode(FrameType(f[0]), f[HEADER_BYTES:]) for f in frames]
    assert offer == Offer(VERSION, 100_000, manifest.total)
    assert all(len(frame) <= ENTRIES_FRAME for frame in offer_frames(manifest))
    builder = manifest_module.ManifestBuilder()
    for part in parts:
        assert isinstance(part, Entries)
        builder.add(part.folders, part.files)
    assert builder.build() == manifest


def test_one_error_type_covers_every_refusal() -> None:
    """A caller needs to catch `MalformedMessage` only."""
    assert issubclass(UnsafeName, MalformedMessage)
    assert issubclass(UnacceptableManifest, MalformedMessage)
    assert issubclass(MalformedTransfer, MalformedMessage)
