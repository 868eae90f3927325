"""The path that bytes take, as people, scripts and applications are told it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

PathKind: TypeAlias = Literal["hub", "relay", "direct", "lan"]


@dataclass(frozen=True, slots=True)
class Path:
    """One way to the other side.

    `local` and `remote` are ``HOST:PORT`` as seen between the two sides (outside the NATs), empty on the
    hub's. `rtt` is in seconds, None until measured. `reason` says in words why this path.
    """

    kind: PathKind
    transport: Literal["udp", "tcp", "tls", "ws"]
    local: str
    remote: str
    rtt: float | None
    reason: str

    @property
    def is_direct(self) -> bool:
        """Whether no server is in between."""
        return self.kind in ("direct", "lan")

    def __str__(self) -> str:
        if self.kind == "hub":
            return f"hub, {self.transport}, {self.remote}"
        return f"{self.kind}, {self.transport}, {self.local} ⇄ {self.remote}"
