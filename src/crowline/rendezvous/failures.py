"""What a refusal or an ending by the hub means to the person: the error with its sentence and hint."""

from __future__ import annotations

from crowline.base.errors import (
    CrowlineError,
    Interrupted,
    NobodyCame,
    ProtocolViolation,
    ServerUnreachable,
    WrongCode,
)
from crowline.rendezvous.role import Role
from crowline.rendezvous.wire import Error, Gone

_NEW_CODE = "One wrong guess uses a code up. Make a new one and try again."


def wrong_guess(role: Role) -> WrongCode:
    """The exchange failed: the two sides did not have the same code."""
    if role is Role.HOST:
        return WrongCode("Somebody tried the code with wrong words, so it is used up.", hint=_NEW_CODE)
    return WrongCode("The words of that code are wrong, and now it is used up.", hint=_NEW_CODE)


class Displaced(Interrupted):
    """Another program on this side has taken over the connection to that other side."""


class Renewed(NobodyCame):
    """The other side went away and is there again."""


def stranger() -> WrongCode:
    """Somebody was at the appointment who does not have the secret, and so had no business to know of it."""
    return WrongCode("What came is not the other side that was here before.", hint="Make a new code.")


def of_gone(message: Gone, *, met: bool, named: bool) -> CrowlineError:
    """The hub closed the mailbox, which is `named` or has a code."""
    if message.reason == "burned" and named:
        return NobodyCame("The other side gave this meeting up before it had begun.")
    if message.reason == "burned":
        return WrongCode("That code was tried with wrong words, so it is used up.", hint=_NEW_CODE)
    if message.reason == "replaced":
        return Displaced()
    if message.reason == "renewed":
        return Renewed()
    if message.reason == "flood":
        return ProtocolViolation("The server closed the meeting: more signals than it carries.")
    if met:
        return NobodyCame("The server closed the meeting after a long silence.")
    return NobodyCame("The code expired before anybody used it.", hint="Make a new one.")


def of_error(message: Error) -> CrowlineError:
    """The hub refused a request."""
    if message.code == "no-such-code":
        return WrongCode(
            "There is no such code: it is mistyped, used up or expired.",
            hint="Check it, or ask the other side for a new one.",
        )
    if message.code == "slow-down":
        return ServerUnreachable(
            "The server takes no more attempts from this address for the moment.",
            hint=f"Try again in {message.retry} seconds.",
        )
    if message.code == "full":
        return ServerUnreachable("The server has no room for another meeting.", hint="Try again later.")
    if message.code == "lost":
        return ServerUnreachable("The server no longer knows this meeting.", hint="Make a new code.")
    return ServerUnreachable(
        "The server does not understand this program: it speaks another version.",
        hint="Update the older of the two.",
    )
