"""Workers that do not begin to work."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem
from crowline.base.secrets import Secret
from crowline.server import worker_pool, worker_process
from crowline.server.front import StunTurnFront

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers need Linux")


async def test_workers_that_never_begin_are_a_local_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes that live and say nothing: the server gives up with a sentence, and leaves none of them."""
    idle = tmp_path / "idle"
    idle.write_text('#!/bin/sh\necho $$ >> "$0.pids"\nexec sleep 600\n')
    idle.chmod(0o755)
    (tmp_path / "idle.pids").write_text("")
    monkeypatch.setattr(worker_pool, "START_TIME", 1.0)
    monkeypatch.setattr(worker_process, "GRACE", 0.1)
    monkeypatch.setattr(sys, "executable", str(idle))
    front = StunTurnFront(
        Address("127.0.0.1", 0), secret=Secret(b"secret"), permits=lambda user, peer: True, workers=2
    )
    with pytest.raises(LocalProblem, match="did not begin"):
        await front.start()
    started, left = idle_processes(idle)
    # A slow machine may end one before it has said its number; a second try would make it four.
    assert started <= 2
    assert left == 0


def idle_processes(program: Path) -> tuple[int, int]:
    """How many processes of the program there have been, and how many there are."""
    pids = Path(f"{program}.pids").read_text().split()
    return len(pids), sum(Path(f"/proc/{pid}").exists() for pid in pids)
