"""What two sides run with each other: the first line of a stream says it, so that a mismatch is a sentence.

Each side writes its line at once, ``crowline/NAME VERSION``, and reads the other's: no round trip is spent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from crowline.api.peer import Peer, Stream
from crowline.base.errors import ProtocolViolation

# A line that names a service: what comes from the other side is shown to people only if it looks like one.
_LINE = re.compile(rb"crowline/([a-z][a-z-]{0,30}) ([1-9][0-9]{0,3})\n")

# The services that another command takes, and the commands that run them.
_SENDS = {"send": "send", "send-stream": "send -"}


@dataclass(frozen=True, slots=True)
class Service:
    """`verb`: the command that runs it."""

    verb: str
    version: int = 1

    @property
    def line(self) -> bytes:
        return f"crowline/{self.verb} {self.version}\n".encode()

    def check(self, line: bytes) -> None:
        """Raises `ProtocolViolation` where the other side's line says something else."""
        if line == self.line:
            return
        match = _LINE.fullmatch(line)
        if match is None:
            raise ProtocolViolation(f"The other side does not run `crowline {self.verb}`.")
        verb = match[1].decode()
        if verb == self.verb:
            hint = "Update the older of the two."
            raise ProtocolViolation(f"The other side has another version of `crowline {verb}`.", hint=hint)
        if verb in _SENDS:
            hint = "`crowline receive` goes with that."
            raise ProtocolViolation(f"The other side runs `crowline {_SENDS[verb]}`.", hint=hint)
        hint = "Both sides have to run the same command."
        raise ProtocolViolation(f"The other side runs `crowline {verb}`.", hint=hint)


async def agreed_stream(peer: Peer, service: Service) -> Stream:
    """One stream between the two sides, both of which call this; the host opens it.

    Raises `ProtocolViolation` where the other side runs something else.
    """
    stream = await (peer.open_stream() if peer.is_host else peer.accept_stream())
    await stream.write(service.line)
    service.check(await stream.readline())
    return stream
