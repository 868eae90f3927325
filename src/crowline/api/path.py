"""The path that bytes take, as people, scripts and applications are told it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

PathKind: TypeAlias = Literal["hub", "relay", "direct", "lan"]
PathTransport: TypeAlias = Literal["udp", "tcp", "tls", "ws"]


@dataclass(frozen=True, slots=True)
class Path:
    """One way to the other side.

    `local` and `remote` are ``HOST:PORT`` as seen between the two sides (outside the NATs), empty on the
    hub's. `transport` is how its packets leave this machine: towards a relay of ours that may be a stream,
    while the other side uses UDP. `rtt` is in seconds, None until measured. `reason` says in words why this
    path.
    """

    kind: PathKind
    transport: PathTransport
    local: str
    remote: str
    rtt: float | None
    reason: str

    @property
    def is_direct(self) -> bool:
        """Whether no server is in between."""
        return self.kind in ("direct", "lan")

    def is_same_way(self, other: Path) -> bool:
        """Whether packets travel as on `other`, whatever the reason."""
        return (self.kind, self.transport, self.local, self.remote) == (
            other.kind,
            other.transport,
            other.local,
            other.remote,
        )

    def __str__(self) -> str:
        if self.kind == "hub":
            return f"hub, {self.transport}, {self.remote}"
        return f"{self.kind}, {self.transport}, {self.local} ⇄ {self.remote}"
