"""How an IPv6 pinhole is opened, kept and closed: conversations as in `mapping`."""

from __future__ import annotations

from crowline.portmap.upnp.description import Service
from crowline.portmap.upnp.mapping import Call, Conversation, Grant, Refusal
from crowline.portmap.upnp.pinhole_actions import (
    Pinhole,
    add_pinhole,
    delete_pinhole,
    get_firewall_status,
    read_firewall_status,
    read_identity,
    update_pinhole,
)
from crowline.portmap.upnp.soap import Answered, Fault
from crowline.portmap.upnp.upnp_error import UpnpError


def open_pinhole(service: Service, pinhole: Pinhole) -> Conversation[Grant | Refusal]:
    """Open it, unless the gateway filters nothing (then nothing is needed) or forbids pinholes."""
    outcome = yield Call(service, get_firewall_status())
    status = read_firewall_status(outcome) if isinstance(outcome, Answered) else None
    if status is not None and not status.is_enabled:
        return Grant(pinhole.port, 0, is_verified=True)
    if status is not None and not status.allows_pinholes:
        return Refusal(Fault(UpnpError.INBOUND_NOT_ALLOWED).words, UpnpError.INBOUND_NOT_ALLOWED)
    outcome = yield Call(service, add_pinhole(pinhole))
    if isinstance(outcome, Fault):
        return Refusal(outcome.words, outcome.code)
    identity = read_identity(outcome) if isinstance(outcome, Answered) else None
    if identity is None:
        return Refusal(getattr(outcome, "words", "the gateway does not say which pinhole it opened"))
    return Grant(pinhole.port, pinhole.lease, identity=identity)


def renew_pinhole(service: Service, pinhole: Pinhole, identity: int) -> Conversation[Grant | Refusal]:
    """Make it last another lease; one that the gateway has forgotten is opened anew."""
    outcome = yield Call(service, update_pinhole(identity, pinhole.lease))
    if isinstance(outcome, Answered):
        return Grant(pinhole.port, pinhole.lease, identity=identity)
    if isinstance(outcome, Fault):
        return (yield from open_pinhole(service, pinhole))
    return Refusal(outcome.words)


def close_pinhole(service: Service, identity: int) -> Conversation[bool]:
    """Whether it is gone."""
    outcome = yield Call(service, delete_pinhole(identity))
    return isinstance(outcome, Answered) or outcome == Fault(UpnpError.NO_SUCH_PINHOLE)
