"""Ctrl-C in a real process."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from memory_stream import tree

# Accepts an offer of 100 MB, gets a part of it, says so, and then waits for a peer that says nothing.
RECEIVER = """
import asyncio, sys
from crowline.api.transfer import Decision, receive_into
from crowline.transfer.manifest import File, Folder, Manifest
from crowline.transfer.messages import FrameType, frame_header, offer_frames

OFFER = b"".join(offer_frames(Manifest((Folder("d", 0o755),), (File("d/a", 10**8, 0o644),))))

class Stream:
    said = [OFFER, frame_header(FrameType.DATA, 1000) + bytes(1000)]
    accepted = asyncio.Event()

    async def read(self, limit):
        if len(self.said) == 2:
            return self.said.pop(0)
        await self.accepted.wait()
        if self.said:
            return self.said.pop()
        print("waiting", flush=True)
        await asyncio.Event().wait()

    async def write(self, data):
        self.accepted.set()

    async def close(self):
        pass

    def abort(self):
        pass

async def yes(offer):
    return Decision(accept=True)

asyncio.run(receive_into(Stream(), sys.argv[1], decide=yes))
"""


def test_ctrl_c_removes_what_is_half_written(tmp_path: Path) -> None:
    """The part and the folder for it are gone when the process is."""
    process = subprocess.Popen(
        [sys.executable, "-c", RECEIVER, str(tmp_path / "target")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    assert (tmp_path / "target").is_dir()
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=20)
    assert "KeyboardInterrupt" in complaint
    assert tree(tmp_path / "target") == {}
