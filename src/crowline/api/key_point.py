"""Meeting by a secret that both sides have from an earlier meeting: no code, in whichever order they come."""

from __future__ import annotations

import os

from crowline.api.hub_channel import HubChannel, reach_hub
from crowline.api.meeting_point import Callbacks
from crowline.base.errors import NobodyCame, NoPath
from crowline.base.secrets import Secret
from crowline.rendezvous.appointment import Appointment
from crowline.rendezvous.code import Code
from crowline.rendezvous.meeting import Meeting
from crowline.rendezvous.pake import Spake2Pake
from crowline.rendezvous.role import Role


class ByKey:
    """At the server `url`, in the mailbox that `secret` (32 bytes) names.

    The two sides have different roles, the same each time; who comes again in the same role takes the place
    of who was there before. `hides`: the hub is to confirm no address of this side. `lasts`: should the two
    lose each other they meet there again, and not where the key of this meeting leads; a later process of
    either side is met there too.
    """

    has_server = True
    caution = ""

    def __init__(self, url: str, secret: Secret | bytes, *, hides: bool = False, lasts: bool = False) -> None:
        """Raises `UsageError` for a secret of another length."""
        self.url = url
        self.secret = secret if isinstance(secret, Secret) else Secret(secret)
        self.lasts = lasts
        self._appointment = Appointment.of(self.secret)
        self._hides = hides

    def nobody_came(self) -> NobodyCame:
        return NobodyCame(hint="Is the other side's program running, with the same server?")

    def no_path(self) -> NoPath:
        return NoPath()

    async def open(self, role: Role, code: Code | None, callbacks: Callbacks) -> HubChannel:
        """Reach the hub. Raises `ServerUnreachable`, and `UsageError` for a URL that is none."""
        socket = await reach_hub(self.url)
        meeting = Meeting(
            role,
            pake_factory=Spake2Pake,
            entropy=os.urandom,
            hidden=self._hides,
            appointment=self._appointment,
        )
        return HubChannel(socket, meeting, callbacks)
