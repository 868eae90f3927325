"""aioice in the NAT laboratory: `crowline lab matrix --world kernel --peer examples/lab_peer_aioice.py`.

Each side gathers candidates with the laboratory's STUN server, exchanges them through the shared folder and
connects; where coturn is installed, its relay is used too. `docs/lab.md` explains what a peer script is told.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import aioice

FOLDER = Path(os.environ["CROWLINE_LAB_FOLDER"])
ROLE = os.environ["CROWLINE_LAB_ROLE"]
SERVER = os.environ["CROWLINE_LAB_SERVERS"].split()[0]
TIMEOUT = float(os.environ["CROWLINE_LAB_TIMEOUT"])

TURN_PORT = 3480  # the laboratory's own server has 3478 and 3479
TURN_USER, TURN_PASSWORD = "aioice", "in the laboratory"
TURN_MARK = FOLDER / "turn"  # there where the relay runs
POLL = 0.002  # seconds between looks into the folder


def serve() -> None:
    """Run coturn in the foreground, where it is installed: one line when it is ready, then until SIGTERM."""
    program = shutil.which("turnserver")
    if program is None:
        sys.exit(0)
    argv = [
        *(program, "-n", "--no-cli", "--no-tls", "--no-dtls", "--no-rfc5780", "--lt-cred-mech"),
        *("--realm", "lab", "--user", f"{TURN_USER}:{TURN_PASSWORD}"),
        *("--listening-ip", SERVER, "--relay-ip", SERVER, "--listening-port", str(TURN_PORT)),
        *(
            "--log-file",
            "/dev/null",
            "--pidfile",
            str(FOLDER / "turn.pid"),
            "--userdb",
            str(FOLDER / "turn.db"),
        ),
    ]
    TURN_MARK.touch()
    print("ready", flush=True)
    os.execv(program, argv)


async def connect() -> dict[str, object]:
    """One attempt of this side; what the laboratory wants to know about it."""
    stun_host, _, stun_port = os.environ["CROWLINE_LAB_STUN"].rpartition(":")
    turn = {}
    if TURN_MARK.exists():
        turn = {
            "turn_server": (SERVER, TURN_PORT),
            "turn_username": TURN_USER,
            "turn_password": TURN_PASSWORD,
        }
    connection = aioice.Connection(
        ice_controlling=ROLE == "b", stun_server=(stun_host.strip("[]"), int(stun_port)), **turn
    )
    try:
        await meet()
        began = time.monotonic()
        await connection.gather_candidates()
        await exchange(connection)
        await connection.connect()
        await connection.send(b"over and out")
        await connection.recv()
        setup_ms = (time.monotonic() - began) * 1000
        kind, technique = describe(connection)
        await asyncio.sleep(0.5)  # the other side may still wait for its byte
        direct_ms = setup_ms if kind != "relay" else None
        return {"kind": kind, "setup_ms": setup_ms, "direct_ms": direct_ms, "technique": technique}
    except ConnectionError as error:
        return {"kind": "failed", "reason": str(error)}
    finally:
        await connection.close()


async def meet() -> None:
    """Wait until both sides are there."""
    tell("here", {})
    await other("here")


async def exchange(connection: aioice.Connection) -> None:
    """Swap descriptions through the folder, as an application would by its own server."""
    tell(
        "candidates",
        {
            "username": connection.local_username,
            "password": connection.local_password,
            "candidates": [candidate.to_sdp() for candidate in connection.local_candidates],
        },
    )
    theirs = await other("candidates")
    connection.remote_username, connection.remote_password = theirs["username"], theirs["password"]
    for candidate in theirs["candidates"]:
        await connection.add_remote_candidate(aioice.Candidate.from_sdp(candidate))
    await connection.add_remote_candidate(None)


def tell(name: str, message: dict[str, object]) -> None:
    unfinished = FOLDER / f".{name}-{ROLE}"
    unfinished.write_text(json.dumps(message))
    unfinished.rename(FOLDER / f"{name}-{ROLE}")


async def other(name: str) -> dict:
    file = FOLDER / f"{name}-{'a' if ROLE == 'b' else 'b'}"
    while not file.exists():  # noqa: ASYNC110 - another process writes it
        await asyncio.sleep(POLL)
    return json.loads(file.read_text())


def describe(connection: aioice.Connection) -> tuple[str, str]:
    """The kind of the path and what made it, from the pair that was nominated."""
    pair = connection._nominated[1]  # aioice has no public name for it
    types = {pair.local_candidate.type, pair.remote_candidate.type}
    if "relay" in types:
        return "relay", "relay"
    if ":" in pair.remote_candidate.host:
        return "direct", "ipv6"
    return "direct", next((each for each in ("prflx", "srflx") if each in types), "host")


async def main() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        outcome = await asyncio.wait_for(connect(), TIMEOUT - 1)
    except TimeoutError:
        outcome = {"kind": "failed", "reason": "no answer in time"}
    print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    serve() if ROLE == "server" else asyncio.run(main())
