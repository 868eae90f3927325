"""Every exception of the project.

    CrowlineError                     message, hint, exit_code
    ├── UsageError            (2)     the caller asked for something that makes no sense
    ├── MalformedMessage              a peer's bytes do not parse; one subclass for each codec
    ├── ProtocolViolation     (1)     a peer's bytes parse, and break the protocol
    ├── NobodyCame            (3)     the other side did not come in time, or went away
    ├── WrongCode             (4)     the code is wrong, used up or expired
    ├── Refused               (5)     the other side said no
    ├── NoPath                (6)     no usable path, or none of the allowed kind
    ├── ServerUnreachable     (7)     no server answers, or none that speaks our version
    ├── LocalProblem          (8)     a file, the disk, a port of this machine
    ├── IntegrityFailed       (9)     what arrived is not what was sent
    └── Interrupted           (10)    broken off, and can be resumed
        └── PeerRestarted             the other side is there again, as another process

The message is the sentence a person reads; the hint says what to do about it. `MalformedMessage` and
`ProtocolViolation` are the peer's misbehaviour, `UsageError` the caller's misuse.
"""

from __future__ import annotations

from typing import ClassVar


class CrowlineError(Exception):
    """Something went wrong."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str | None = None, *, hint: str = "") -> None:
        self.message = message or (self.__doc__ or "").strip()
        self.hint = hint
        super().__init__(self.message)


class UsageError(CrowlineError):
    """That call makes no sense."""

    exit_code = 2


class MalformedMessage(CrowlineError):
    """The other side sent something that cannot be read."""


class ProtocolViolation(CrowlineError):
    """The other side broke the protocol."""


class NobodyCame(CrowlineError):
    """The other side did not come."""

    exit_code = 3


class WrongCode(CrowlineError):
    """That code is wrong, used up or expired."""

    exit_code = 4


class Refused(CrowlineError):
    """The other side refused."""

    exit_code = 5


class Declined(Refused):
    """The other side does not want it."""


class NoPath(CrowlineError):
    """There is no usable path to the other side."""

    exit_code = 6


class ServerUnreachable(CrowlineError):
    """The server cannot be reached."""

    exit_code = 7


class LocalProblem(CrowlineError):
    """Something on this machine is in the way."""

    exit_code = 8


class IntegrityFailed(CrowlineError):
    """What arrived is not what was sent."""

    exit_code = 9


class Interrupted(CrowlineError):
    """The transfer was broken off; run the same command again to resume."""

    exit_code = 10


class PeerRestarted(Interrupted):
    """The other side began again, in another process."""


def error_for(exit_code: int, message: str) -> CrowlineError:
    """The error that the other side gave as a code and a sentence. What is local there is a refusal here."""
    kinds: dict[int, type[CrowlineError]] = {
        kind.exit_code: kind
        for kind in (Interrupted, IntegrityFailed, NoPath, Refused, WrongCode, NobodyCame)
    }
    kinds[LocalProblem.exit_code] = Refused
    return kinds.get(exit_code, CrowlineError)(f"The other side says: {message}" if message else None)
