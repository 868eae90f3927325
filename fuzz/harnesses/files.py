"""Transfer frames, the receiver above them, and names."""

from __future__ import annotations

from crowline.base.errors import MalformedMessage
from crowline.transfer import messages as m
from crowline.transfer.frames import DataPiece, FrameReader
from crowline.transfer.manifest import File, Folder, Manifest
from crowline.transfer.names import (
    MAX_COMPONENT_BYTES,
    UnsafeName,
    check_component,
    display_name,
    incomplete,
    numbered,
    portable,
    split_path,
    twin_key,
)
from crowline.transfer.receiver import (
    DigestsArrived,
    FileEnded,
    FileLost,
    Offered,
    Receiver,
    SmallArrived,
)
from fuzz.harness import Harness

_MANIFEST = Manifest((Folder("notes", 0o755),), (File("notes/a.txt", 4, 0o644), File("b", 0, 0o600)))
_OFFER = b"".join(m.offer_frames(_MANIFEST)).removeprefix(m.GREETING)
_DATA = m.frame_header(m.FrameType.DATA, 4) + b"data"
_DONE = m.encode(m.FileDone(0, bytes(32)))
_SEEDS = (
    _OFFER,
    _OFFER + _DATA + _DONE + m.encode(m.FileFailed(1, "gone")) + m.encode(m.Finished()),
    _OFFER
    + m.encode(m.Digests(0, bytes(32)))
    + m.encode(m.Keep(4))
    + _DONE
    + m.encode(m.Small(1, bytes(32), b""))
    + m.encode(m.Finished()),
    m.encode(m.Accept([1], {0: 2})),
    m.encode(m.Want(0, b"\1")),
    m.encode(m.Hole(3)),
    m.encode(m.Reject(m.Reason.DECLINED, "No.")),
    m.encode(m.Verdict(0, ok=False, reason=m.Reason.DISK_FULL)),
    m.encode(m.Abort(m.Reason.CANCELLED, "Stop.")),
)
_TOKENS = (
    *_SEEDS[2:],
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xa9../../etc",
)


def run_frames(data: bytes) -> None:
    """Messages and data are the same however the stream is cut."""
    assert _read([data]) == _read([data[at : at + 1] for at in range(len(data))])


def run_receiver(data: bytes) -> None:
    """A receiver that takes everything offered survives any sender, and every name it hands out is safe."""
    receiver = Receiver()
    receiver.receive(m.GREETING + data)
    while (event := receiver.next_event()) is not None:
        if isinstance(event, Offered):
            for folder in event.manifest.folders:
                split_path(folder.path)
            for file in event.manifest.files:
                split_path(file.path)
            for link in event.manifest.links:
                split_path(link.path)
            receiver.accept(compare={i: file.size for i, file in enumerate(event.manifest.files[:1])})
        elif isinstance(event, DigestsArrived):
            receiver.want(event.index, len(data) & 1)
        elif isinstance(event, FileEnded | FileLost | SmallArrived):
            receiver.verdict(event.index, ok=True)
    while receiver.next_transmit() is not None:
        pass


def run_names(data: bytes) -> None:
    """Whatever a name is made of: what is made to fit fits, and what is shown is one plain line."""
    text = data.decode("utf-8", "surrogatepass" if data[:1] != b"\xff" else "replace")
    shown = display_name(text)
    assert shown.isprintable() or not any(ord(letter) < 0xA0 and not letter.isprintable() for letter in shown)
    assert "\n" not in shown and "\x1b" not in shown
    fitting = portable(text)
    for name in (fitting, portable(numbered(fitting, 7)), portable(incomplete(fitting))):
        check_component(name)
        assert len(name.encode()) <= MAX_COMPONENT_BYTES
    assert twin_key(fitting) == twin_key(fitting.upper().lower()) or not fitting.isascii()
    for component in split_path(text):
        assert component not in ("", ".", "..") and not set(component) & set('/\\:\0\n*?"<>|')


def _read(parts: list[bytes]) -> tuple[list[object], bytes, bool]:
    reader, messages, stream = FrameReader(), list[object](), bytearray()
    try:
        for part in parts:
            reader.feed(part)
            while (found := reader.next()) is not None:
                if isinstance(found, DataPiece):
                    stream += found.data
                else:
                    messages.append(found)
    except MalformedMessage:
        return messages, bytes(stream), True
    return messages, bytes(stream), False


HARNESSES = (
    Harness("transfer-frames", run_frames, "crowline/transfer/", _SEEDS, (), _TOKENS),
    Harness("transfer-receiver", run_receiver, "crowline/transfer/", _SEEDS[:2], (), _TOKENS),
    Harness(
        name="transfer-names",
        run=run_names,
        module="crowline/transfer/names",
        seeds=(
            b"notes/a.txt",
            b"../x",
            b"con.txt",
            b"name (1).tar.gz",
            "caf\u00e9/\u0390".encode(),
            b"x" * 300,
        ),
        # A refused name, and bytes that are no text at all: those are refused before they are names.
        allowed=(UnsafeName, UnicodeDecodeError),
        tokens=(
            b"/",
            b"\\",
            b"..",
            b"\0",
            "\u202e".encode(),
            b"\xed\xa0\x80",
            b"NUL",
            b". ",
            "\u0130".encode(),
        ),
    ),
)
