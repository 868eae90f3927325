"""Arrows between the rooms point down only, and the protocol rooms do no input or output of their own."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "crowline"

# From the top of the house to the ground; a room may import only what stands after it.
ROOMS = [
    "cli", "server", "api", "lab", "net", "compat", "transfer", "chat", "forward", "session", "link",
    "rendezvous", "diagnosis", "punch", "ice", "portmap", "turn", "stun", "base",
]  # fmt: skip

SANS_IO = {
    "compat",
    "transfer",
    "forward",
    "chat",
    "session",
    "link",
    "rendezvous",
    "diagnosis",
    "punch",
    "ice",
    "portmap",
    "turn",
    "stun",
    "base",
}

FORBIDDEN_IN_SANS_IO = {
    "asyncio": "the driver in net/ owns the event loop",
    "socket": "sockets live in net/",
    "select": "sockets live in net/",
    "selectors": "sockets live in net/",
    "threading": "threads live in net/",
    "concurrent": "threads live in net/",
    "subprocess": "processes belong to net/ or lab/",
    "time": "the time is an argument",
    "datetime": "the time is an argument",
    "random": "randomness is a constructor argument",
    "secrets": "randomness is a constructor argument",
    "os": "the operating system belongs to net/",
    "pathlib": "files live in net/",
    "shutil": "files live in net/",
    "tempfile": "files live in net/",
    "logging": "machines emit events; drivers log",
    "websockets": "the driver in net/ owns the WebSocket",
    "uvicorn": "belongs to server/",
    "starlette": "belongs to server/",
    "ifaddr": "interfaces belong to net/",
}

# `link/` builds one channel from libraries that are sans-IO themselves.
ALLOWED_EXCEPTIONS = {("link", "ssl"), ("link", "datetime")}

CLI_MAY_IMPORT = {"api", "lab", "server", "base", "cli"}


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def room_of(path: Path) -> str | None:
    parts = path.relative_to(SOURCE).parts
    return parts[0] if len(parts) > 1 else None


def imports_of(path: Path) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            found.append((node.module or "", node.lineno))
            if node.module == "crowline":
                found += [(f"crowline.{alias.name}", node.lineno) for alias in node.names]
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_down(path: Path) -> None:
    """A room imports only rooms below it."""
    room = room_of(path)
    if room is None:
        return
    assert room in ROOMS, f"{room} is not a room of the design"
    for name, line in imports_of(path):
        parts = name.split(".")
        if parts[0] != "crowline" or len(parts) < 2 or parts[1] not in ROOMS:
            continue
        target = parts[1]
        assert ROOMS.index(target) >= ROOMS.index(room), (
            f"{path}:{line}: {room} may not import {target}: arrows point down"
        )
        if room == "cli":
            assert target in CLI_MAY_IMPORT, (
                f"{path}:{line}: a verb uses api, lab and server only, not {target}"
            )


@pytest.mark.parametrize(
    "path", [p for p in modules() if room_of(p) in SANS_IO], ids=lambda p: str(p.relative_to(SOURCE))
)
def test_protocol_rooms_are_sans_io(path: Path) -> None:
    """No socket, clock, randomness, file or log in a protocol room."""
    room = room_of(path)
    for name, line in imports_of(path):
        top = name.split(".")[0]
        if (room, top) in ALLOWED_EXCEPTIONS:
            continue
        reason = FORBIDDEN_IN_SANS_IO.get(top)
        assert reason is None, f"{path}:{line}: {room} may not import {top}: {reason}"
