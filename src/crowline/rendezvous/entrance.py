"""How a side gets into its mailbox: with a code that it is given or brings, or by an appointment."""

from __future__ import annotations

from collections.abc import Callable

from crowline.base.errors import UsageError
from crowline.rendezvous import wire
from crowline.rendezvous.appointment import Appointment
from crowline.rendezvous.code import Code, draw_secret
from crowline.rendezvous.code import password as words_as_password
from crowline.rendezvous.role import Role


class Entrance:
    """`password` feeds the PAKE; `label`, known once both are there, is bound into the key."""

    def __init__(
        self,
        role: Role,
        entropy: Callable[[int], bytes],
        code: Code | None,
        password: bytes | None,
        appointment: Appointment | None,
    ) -> None:
        """`password`: what both sides know, where that is not the code's words."""
        needs_code = role is Role.JOIN and appointment is None
        if (code is not None) is not needs_code:
            raise UsageError("A joining side needs a code, and a host is given one.")
        self.code = code
        self._role = role
        self._appointment = appointment
        self._secret = draw_secret(entropy) if code is None else code.secret
        if appointment is not None:
            self.password = appointment.password
        else:
            self.password = words_as_password(self._secret) if password is None else password

    @property
    def label(self) -> str:
        if self._appointment is not None:
            return self._appointment.name.hex()
        assert self.code is not None
        return str(self.code.number)

    @property
    def is_named(self) -> bool:
        """Whether the mailbox is that of an appointment."""
        return self._appointment is not None

    def request(self, element: bytes, *, is_hidden: bool) -> wire.ClientMessage:
        """The first message to the hub."""
        if self._appointment is not None:
            name = self._appointment.name
            return wire.Meet(wire.VERSION, name, self._role.value, element, is_hidden)
        if self.code is not None:
            return wire.Claim(wire.VERSION, self.code.number, element, is_hidden)
        return wire.Allocate(wire.VERSION, element, is_hidden)

    def is_place(self, message: wire.HubMessage) -> bool:
        """Whether that answers the request of a side that may have to wait for the other one."""
        if self._appointment is not None:
            return isinstance(message, wire.Placed)
        return self._role is Role.HOST and isinstance(message, wire.Allocated)

    def is_meeting(self, message: wire.HubMessage) -> bool:
        """Whether that says to a side that has waited that both are there."""
        if self._appointment is not None:
            return isinstance(message, wire.Met)
        return self._role is Role.HOST and isinstance(message, wire.Joined)

    def is_claimed(self, message: wire.HubMessage) -> bool:
        """Whether that answers the request of a side that need not wait."""
        return self._role is Role.JOIN and self._appointment is None and isinstance(message, wire.Claimed)

    def name_code(self, number: int) -> Code:
        """The code, now that the hub has given its number."""
        self.code = Code.from_secret(number, self._secret)
        return self.code
