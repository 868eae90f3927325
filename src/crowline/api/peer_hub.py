"""What a hub is believed that is in the other side's own process.

It carries the sides' words as any other does. But it is chosen by nobody, and heard before the other side has
proven anything: of servers and relays that it names, packets would go wherever it likes.
"""

from __future__ import annotations

from msgspec.structs import replace

from crowline.rendezvous.events import MeetingEvent, PeerPresent, Welcomed
from crowline.rendezvous.wire import Welcome


def believed(event: MeetingEvent) -> MeetingEvent:
    """The event without servers, relays, and words for people."""
    if isinstance(event, Welcomed):
        return Welcomed(Welcome(event.welcome.v))
    if isinstance(event, PeerPresent):
        return replace(event, turn=None)
    return event
