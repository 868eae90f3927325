"""Attacks on whoever receives files, F1 to F7: names, links, sizes, sources, hashes, places."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import ntpath
import os
import posixpath
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from crowline.api.transfer import (
    Decision,
    FileFinished,
    FileStarted,
    OfferMade,
    Progress,
    Summary,
    TransferEvent,
    receive_into,
    send_paths,
)
from crowline.base.errors import (
    CrowlineError,
    IntegrityFailed,
    LocalProblem,
    MalformedMessage,
    ProtocolViolation,
    Refused,
)
from crowline.net.files import DiskFull, SafeFolder
from crowline.transfer.manifest import MAX_ENTRIES, File, Folder, Manifest
from crowline.transfer.messages import (
    GREETING,
    VERSION,
    Entries,
    FileDone,
    Finished,
    FrameType,
    Offer,
    encode,
    frame_header,
    offer_frames,
)
from crowline.transfer.names import is_private, split_path
from memory_stream import RecordedStream, stream_pair, tree
from needs import missing

HOSTILE = [
    "../x", "/etc/x", "..\\x", "C:\\x", "\\\\srv\\x", "x:stream", "con", "nul.txt", ".", "..", "", "a/",
    "a\x00b", "a\nb", "a\x1b[2Jb", "gpj\u202e.exe", "x" * 300, "x.", "x ", "a\u2215b", "a\uff0fb",
    "d/../../x", "d//x", "./x", "~/../x", "aux", "COM1.txt", "a/b/../../../x", "\ufeffx", "lpt9.", "a\ud800",
]  # fmt: skip

HARMLESS = ["-rf", "~", "~root", "$(id)", "%00", "&amp;", "..x", "x..y", "-", "\u00e9", "e\u0301"]

# Rich in what means something to some system.
ALPHABET = st.sampled_from(
    [*"/\\:.~ -%$abAB0\x00\n\x1b\x7f", "\u202e", "\u2215", "\uff0f", "é", "CON", "..", "nul"]
)
NAMES = st.lists(ALPHABET | st.characters(), max_size=12).map("".join)


async def yes(offer: OfferMade) -> Decision:
    return Decision(accept=True, take_unasked=True)


def offer_of(*files: File, folders: tuple[Folder, ...] = ()) -> bytes:
    return b"".join(offer_frames(Manifest(folders, files)))


def data(content: bytes) -> bytes:
    return frame_header(FrameType.DATA, len(content)) + content


def whole(index: int, content: bytes) -> bytes:
    """All that is said about one small file."""
    return (data(content) if content else b"") + encode(FileDone(index, hashlib.sha256(content).digest()))


async def receive(offer: bytes, rest: bytes, target: Path) -> Summary:
    return await receive_into(RecordedStream(offer + rest, pause=len(offer)), target, decide=yes)


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
async def test_f1_a_hostile_name_is_refused_with_the_whole_offer(name: str, tmp_path: Path) -> None:
    """Nobody is asked, nothing is written anywhere, and the sentence is safe to print."""
    target = tmp_path / "deep" / "target"
    offer = b""
    try:
        offer = offer_of(File("good", 1, 0o644), File(name, 1, 0o644))
    except UnicodeEncodeError:
        bad = b"".join(offer_frames(Manifest((), (File("good", 1, 0o644), File("a?b", 1, 0o644)))))
        offer = bad.replace(b"a?b", b"a\xed\xa0")
    with pytest.raises(ProtocolViolation) as violation:
        await receive(offer, whole(0, b"x") + whole(1, b"x") + encode(Finished()), target)
    assert violation.value.message.isprintable()
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("name", HARMLESS, ids=ascii)
async def test_f1_an_odd_but_harmless_name_is_one_file(name: str, tmp_path: Path) -> None:
    """A name that some shell would expand is a plain name to us."""
    await receive(offer_of(File(name, 1, 0o644)), whole(0, b"x") + encode(Finished()), tmp_path / "target")
    assert tree(tmp_path) == {"target": None, f"target/{name}": b"x"}


@given(NAMES)
@example("..")
@example("C:..\\x")
@example("a/\u202e/b")
@settings(max_examples=2000)
def test_f1_an_accepted_name_stays_inside_on_every_system(name: str) -> None:
    """Joined by the rules of Windows and of POSIX, it is below the target, at its own depth."""
    try:
        parts = split_path(name)
    except MalformedMessage:
        return
    for rules, root in ((ntpath, "C:\\target"), (posixpath, "/target")):
        joined = rules.normpath(rules.join(root, *parts))
        assert rules.dirname(joined) == rules.normpath(rules.join(root, *parts[:-1]))
        assert rules.commonpath([root, joined]) == root
        assert rules.splitdrive(parts[0])[0] == ""


@given(NAMES, NAMES)
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_f1_what_is_received_really_is_inside_the_target(folder_name: str, file_name: str) -> None:
    """The real path of everything that a transfer with hostile names wrote is inside the target."""
    with tempfile.TemporaryDirectory() as root:
        target = Path(root) / "deep" / "target"
        target.mkdir(parents=True)
        path = f"{folder_name}/{file_name}"
        try:
            offer = b"".join(offer_frames(Manifest((Folder(folder_name, 0o755),), (File(path, 1, 0o644),))))
        except UnicodeEncodeError:
            return
        try:
            asyncio.run(receive(offer, whole(0, b"x") + encode(Finished()), target))
        except CrowlineError:
            assert tree(target) == {}
        else:
            assert sorted(tree(target)) == sorted([folder_name, path])
        outside = [p for p in Path(root).rglob("*") if not p.resolve().is_relative_to(target.resolve())]
        assert outside == [target.parent]


async def test_f2_links_planted_before_the_transfer_are_not_followed(tmp_path: Path) -> None:
    """Neither for a file nor for a folder; both get new names."""
    target, outside = tmp_path / "target", tmp_path / "outside"
    target.mkdir()
    outside.mkdir()
    (outside / "a").write_bytes(b"precious")
    (target / "a").symlink_to(outside / "a")
    (target / "d").symlink_to(outside)
    offer = offer_of(File("a", 3, 0o644), File("d/a", 3, 0o644), folders=(Folder("d", 0o755),))
    summary = await receive(offer, whole(0, b"new") + whole(1, b"new") + encode(Finished()), target)
    assert tree(outside) == {"a": b"precious"}
    assert set(summary.saved) == {"a (1)", "d (1)"}
    assert (target / "a (1)").read_bytes() == (target / "d (1)" / "a").read_bytes() == b"new"


@pytest.mark.parametrize("what", ["folder", "subfolder"])
async def test_f2_a_folder_swapped_for_a_link_in_mid_transfer_stops_it(what: str, tmp_path: Path) -> None:
    """Somebody else who may write in the target cannot lead us out of it."""
    target, outside = tmp_path / "target", tmp_path / "outside"
    outside.mkdir()
    (outside / "e").mkdir()
    folders = (Folder("d", 0o755), Folder("d/e", 0o755), Folder("d/f", 0o755))
    files = (File("d/f/a", 3, 0o644), File("d/e/b", 3, 0o644))
    offer = offer_of(*files, folders=folders)

    swapped = asyncio.Event()

    def swap(event: TransferEvent) -> None:
        if isinstance(event, FileFinished):
            staged = next(path for path in target.iterdir() if path.is_dir())
            victim = staged if what == "folder" else staged / "e"
            victim.rename(tmp_path / "moved")
            victim.symlink_to(outside if what == "folder" else outside / "e")
            swapped.set()

    class Stream(RecordedStream):
        async def read(self, limit: int) -> bytes | memoryview:
            if said := await super().read(limit):
                return said
            await swapped.wait()
            swapped.clear()
            return whole(1, b"new")

    stream = Stream(offer + whole(0, b"new"), pause=len(offer))
    with pytest.raises(LocalProblem):
        await receive_into(stream, target, decide=yes, on_event=swap)
    assert tree(outside) == {"e": None}


@pytest.mark.parametrize("content", [b"", b"x" * 100])
async def test_f2_what_is_there_is_never_replaced(content: bytes, tmp_path: Path) -> None:
    """Not a file, not a folder, not a pipe, not a dangling link."""
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    names = ["file", "folder", "pipe", "link"]
    said = b"".join(whole(i, content) for i in range(4)) + encode(Finished())
    await receive(offer_of(*(File(name, len(content), 0o644) for name in names)), said, tmp_path)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert (
        (tmp_path / "folder").is_dir() and (tmp_path / "pipe").is_fifo() and (tmp_path / "link").is_symlink()
    )
    assert all((tmp_path / f"{name} (1)").read_bytes() == content for name in names)


async def test_f3_special_bits_never_arrive(tmp_path: Path) -> None:
    """An offer with set-user-id does not even parse; what parses has nine bits."""
    with pytest.raises(ProtocolViolation):
        await receive(offer_of(File("a", 1, 0o4755)), whole(0, b"x"), tmp_path)
    await receive(offer_of(File("a", 1, 0o755)), whole(0, b"x") + encode(Finished()), tmp_path)
    assert (tmp_path / "a").stat().st_mode & 0o7777 == 0o755


async def test_f3_a_flood_of_entries_is_cut_off(tmp_path: Path) -> None:
    """An offer may not have more entries than the limit, whatever it announces, and twins count as lies."""
    with pytest.raises(ProtocolViolation):
        await receive(frame_of_offer(MAX_ENTRIES + 1), b"", tmp_path)
    files = [File(f"{i:x}", 0, 0) for i in range(MAX_ENTRIES // 4)]
    flood = GREETING + encode(Offer(VERSION, 1, 0)) + b"".join(encode(Entries([], files)) for _ in range(5))
    with pytest.raises(ProtocolViolation):
        await receive(flood, b"", tmp_path)
    assert tree(tmp_path) == {}


def frame_of_offer(entries: int) -> bytes:
    """An offer that our own encoder would make of any count."""
    return GREETING + encode(Offer(VERSION, entries, 0))


async def test_f3_a_tree_without_end_is_refused(tmp_path: Path) -> None:
    """Nesting is limited before anything is made."""
    paths = ["/".join("d" * depth) for depth in range(1, 40)]
    with pytest.raises(ProtocolViolation, match="deeper"):
        await receive(offer_of(folders=tuple(Folder(path, 0o755) for path in paths)), b"", tmp_path)
    assert tree(tmp_path) == {}


async def test_f4_a_sender_that_goes_on_and_on_is_stopped_at_the_claimed_size(tmp_path: Path) -> None:
    """One byte was claimed; not a second one is written, and the part is removed."""
    seen = 0

    def count(event: TransferEvent) -> None:
        nonlocal seen
        if isinstance(event, Progress):
            seen = max(seen, event.bytes_done)

    offer = offer_of(File("a", 1, 0o644))
    stream = RecordedStream(offer + data(b"x") + data(bytes(1 << 20)) * 8, pause=len(offer))
    with pytest.raises(ProtocolViolation, match="more of a file"):
        await receive_into(stream, tmp_path, decide=yes, on_event=count)
    assert seen <= 1
    assert tree(tmp_path) == {}


async def test_f4_a_claim_of_a_terabyte_is_refused_before_it_comes(tmp_path: Path) -> None:
    """The sender hears that there is no room; nothing has been written."""
    offer = offer_of(File("a", 1 << 60, 0o644))
    with pytest.raises(DiskFull) as full:
        await receive(offer, data(b"x"), tmp_path)
    assert full.value.exit_code == 8 and full.value.hint
    assert tree(tmp_path) == {}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        missing("a small file system can be mounted by root only")
    mounted = subprocess.run([mount, "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        missing(f"this machine lets nobody mount: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.kernel
async def test_f4_a_disk_that_fills_up_in_the_middle_can_be_resumed(small_disk: Path, tmp_path: Path) -> None:
    """A real full disk: exit code 8 here, the reason there, and what has come need not come again."""
    (tmp_path / "large").write_bytes(os.urandom(10 << 20))

    def fill(event: TransferEvent) -> None:
        if isinstance(event, FileStarted):
            (small_disk / "somebody else's").write_bytes(bytes(12 << 20))

    one, other = stream_pair()
    sent, received = await asyncio.gather(
        send_paths(one, [tmp_path / "large"]),
        receive_into(other, small_disk, decide=yes, on_event=fill),
        return_exceptions=True,
    )
    assert isinstance(received, DiskFull) and received.exit_code == 8
    assert isinstance(sent, Refused) and sent.exit_code == 5 and "disk" in sent.message
    part, other_file = sorted(tree(small_disk))
    assert is_private(part) and other_file == "somebody else's"
    came = (small_disk / part).stat().st_size
    assert came >= 1 << 20
    (small_disk / "somebody else's").unlink()
    one, other = stream_pair()
    sent, received = await asyncio.gather(
        send_paths(one, [tmp_path / "large"]), receive_into(other, small_disk, decide=yes)
    )
    assert tree(small_disk) == {"large": (tmp_path / "large").read_bytes()}
    assert sent.kept == received.kept == came >> 20 << 20


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
async def test_f4_a_write_that_fails_leaves_at_most_a_part(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same on any machine: the system refuses the bytes after the first mebibyte."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "large").write_bytes(os.urandom(4 << 20))
    real_write = os.write
    written = 0

    def write(descriptor: int, content: memoryview) -> int:
        nonlocal written
        if written + len(content) > 1 << 20:
            raise OSError(number, os.strerror(number))
        written += len(content)
        return real_write(descriptor, content)

    monkeypatch.setattr(os, "write", write)
    one, other = stream_pair(piece=100_000)
    sent, received = await asyncio.gather(
        send_paths(one, [tmp_path / "source"]),
        receive_into(other, tmp_path / "target", decide=yes),
        return_exceptions=True,
    )
    assert isinstance(received, LocalProblem) and received.exit_code == 8
    assert isinstance(sent, Refused)
    left = {name for name, content in tree(tmp_path / "target").items() if content is not None}
    assert all(is_private(name.rpartition("/")[2]) for name in left)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/random", "/dev/null", "/dev/tty"])
async def test_f5_a_device_is_not_sent(path: str) -> None:
    """Regular files and folders only: a device never ends."""
    with pytest.raises(LocalProblem, match="neither a file nor a folder"):
        await send_paths(RecordedStream(b""), [path])


async def test_f5_a_file_of_the_kernel_that_lies_about_its_size_is_not_passed_as_whole(
    tmp_path: Path,
) -> None:
    """Files in /proc claim to be empty; what is more than the claim is noticed."""
    one, other = stream_pair()
    sent, received = await asyncio.gather(
        send_paths(one, ["/proc/cpuinfo"]), receive_into(other, tmp_path, decide=yes), return_exceptions=True
    )
    assert isinstance(sent, LocalProblem) and "longer" in sent.message
    assert isinstance(received, IntegrityFailed)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    "claimed", [bytes(32), hashlib.sha256(b"whol").digest()], ids=["wrong", "of a prefix"]
)
async def test_f6_a_file_that_is_not_what_its_hash_says_is_not_kept(claimed: bytes, tmp_path: Path) -> None:
    """The whole file's hash is verified before the file gets its name; the others are kept."""
    offer = offer_of(File("a", 5, 0o644), File("b", 5, 0o644))
    said = data(b"whole") + encode(FileDone(0, claimed)) + whole(1, b"other") + encode(Finished())
    with pytest.raises(IntegrityFailed) as failed:
        await receive(offer, said, tmp_path)
    assert failed.value.exit_code == 9
    assert tree(tmp_path) == {"b": b"other"}


async def test_f7_a_file_that_would_be_obeyed_is_not_put_there_without_a_yes(tmp_path: Path) -> None:
    """The answer "everything" does not include what a shell or desktop runs unasked."""

    async def plain_yes(offer: OfferMade) -> Decision:
        assert offer.manifest.unasked() == [".ssh", ".bashrc", "Desktop.ini"]
        return Decision(accept=True)

    offer = offer_of(
        File(".bashrc", 1, 0o644),
        File("Desktop.ini", 1, 0o644),
        File(".ssh/authorized_keys", 1, 0o600),
        File("a", 1, 0o644),
        folders=(Folder(".ssh", 0o700),),
    )
    stream = RecordedStream(offer + whole(3, b"x") + encode(Finished()), pause=len(offer))
    await receive_into(stream, tmp_path, decide=plain_yes)
    assert tree(tmp_path) == {"a": b"x"}


def test_f2_two_transfers_into_one_folder_do_not_touch_each_other(tmp_path: Path) -> None:
    """The same names at the same time: each transfer gets its own."""
    folders = [SafeFolder.open(tmp_path) for _ in range(2)]
    files = []
    for number, folder in enumerate(folders):
        folder.prepare(Manifest((Folder("d", 0o755),), ()))
        files += [folder.create_file("d/a", 0o644), folder.create_file("b", 0o644)]
        for file in files[-2:]:
            file.write(b"%d" % number)
    for file in files:
        file.commit()
    assert [folder.settle() for folder in folders] == [{"b": "b", "d": "d"}, {"b": "b (1)", "d": "d (1)"}]
    for folder in folders:
        folder.close()
    assert tree(tmp_path) == {
        "b": b"0",
        "b (1)": b"1",
        "d": None,
        "d/a": b"0",
        "d (1)": None,
        "d (1)/a": b"1",
    }
