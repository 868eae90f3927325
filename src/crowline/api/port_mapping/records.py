"""Ports that stay open when the program that opened them ends: what is needed to close them again."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from crowline.net.state_file import read_state, replace_state, state_folder

FILE = "ports.json"
MAX_RECORDS = 256
MAX_BYTES = 1 << 17


class PortRecord(msgspec.Struct, frozen=True):
    """A port of this machine at `host`, and the router's. `ends` is a time of the system's clock in seconds,
    0 for a port without an end. `nonce` is PCP's: whoever has it may close the port.
    """

    host: str
    transport: str
    port: int
    outside_host: str
    outside_port: int
    protocol: str
    gateway: str
    ends: float
    nonce: bytes = b""

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells ports of this machine apart."""
        return self.host, self.transport, self.port


class PortRecords:
    """One file, readable by this user alone. `folder` is where it lies, by default the state folder."""

    def __init__(self, folder: Path | None = None) -> None:
        self._path = (folder or state_folder()) / FILE

    def all(self) -> list[PortRecord]:
        """What is still open, unless somebody closed it meanwhile."""
        try:
            found = msgspec.json.decode(read_state(self._path, MAX_BYTES), type=list[PortRecord])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return []
        return [each for each in found if not each.ends or each.ends > time.time()]

    def find(self, transport: str, port: int) -> PortRecord | None:
        """The record of a port of this machine, the newest first."""
        meant = (each for each in reversed(self.all()) if (each.transport, each.port) == (transport, port))
        return next(meant, None)

    def add(self, record: PortRecord) -> None:
        """Raises `OSError` where it cannot be written."""
        self._replace([*(each for each in self.all() if each.key != record.key), record])

    def remove(self, record: PortRecord) -> None:
        """The port is closed. Raises `OSError` where it cannot be written."""
        self._replace([each for each in self.all() if each.key != record.key])

    def _replace(self, records: list[PortRecord]) -> None:
        replace_state(self._path, msgspec.json.encode(records[-MAX_RECORDS:]))
