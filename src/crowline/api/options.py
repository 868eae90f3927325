"""What a caller may decide about a meeting, and where the server's name comes from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crowline.base.errors import ServerUnreachable, UsageError

if TYPE_CHECKING:
    from crowline.api.meeting_point import Place

SERVER_VARIABLE = "CROWLINE_SERVER"
DEADLINE = 1200.0
"""Seconds without any path after which two sides that have met give each other up: time for a train's tunnel,
a router that restarts, a laptop's walk to another room."""


@dataclass(frozen=True, slots=True)
class Options:
    """`server` is the hub's URL. `relay_only` shows the other side no address of ours and uses none of
    theirs; `direct_only` sends nothing until no server is in between. `timeout` is how many seconds to wait
    for the other side; None leaves it to the hub, which forgets an unused code after an hour.
    `hide_addresses` tells the other side names in place of this machine's own addresses, which mean something
    on this network alone. `tells_moves`: what becomes of each pair is told to `Traversal.on_ice`.
    `place`: where to meet without the server. `port_mapping`: routers may be asked to open ports. `limit`:
    bytes of streams that leave in a second at most, in either direction. `deadline`: how many seconds two
    sides that have met may be without any path before they give each other up.
    """

    server: str
    relay_only: bool = False
    direct_only: bool = False
    timeout: float | None = None
    hide_addresses: bool = False
    tells_moves: bool = False
    place: Place | None = None
    port_mapping: bool = True
    limit: int | None = None
    deadline: float = DEADLINE

    def __post_init__(self) -> None:
        if self.relay_only and self.direct_only:
            raise UsageError("Relay only and direct only exclude each other.")


def config_file() -> Path:
    """Where the user's settings are."""
    import platformdirs

    return Path(platformdirs.user_config_dir("crowline", appauthor=False)) / "config.toml"


def default_server() -> str:
    """`CROWLINE_SERVER`, else `server` of the config file. Raises `ServerUnreachable` where neither says."""
    if named := os.environ.get(SERVER_VARIABLE):
        return named
    import tomllib

    path = config_file()
    try:
        settings = tomllib.loads(path.read_text())
    except FileNotFoundError:
        settings = {}
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read: {error}.") from error
    if isinstance(named := settings.get("server"), str):
        return named
    raise ServerUnreachable(
        "No server is named.",
        hint=f"Use --server ws://HOST:8080 or {SERVER_VARIABLE}; `crowline serve` runs one.",
    )
