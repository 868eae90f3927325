"""What attacks on TURN have in common: a foothold, and every way to a peer."""

from __future__ import annotations

from crowline.base.addresses import Address
from crowline.base.transport import Transport
from crowline.stun import attributes as a
from crowline.stun.message import Message, MessageClass, Method
from crowline.turn.server_events import Dial
from turn_pair import CLIENT, Caller, World, error_code

WAYS = ["permission", "channel", "send", "connect"]


def allocated(world: World | None = None, address: Address = CLIENT, user: str = "mailbox") -> Caller:
    """A client with an allocation that relays datagrams."""
    caller = Caller(world or World(), address, user)
    assert error_code(caller.allocate()) == 0
    return caller


def foothold(
    way: str, world: World | None = None, address: Address = CLIENT, family: int = a.FAMILY_IPV4
) -> Caller:
    """A client with the kind of allocation that `way` needs."""
    transport, protocol = (Transport.TCP, 6) if way == "connect" else (Transport.UDP, 17)
    caller = Caller(world or World(), address, transport=transport)
    wanted = (a.RequestedTransport(protocol), a.RequestedAddressFamily(family))
    assert caller.code(Method.ALLOCATE, *wanted) == 0
    return caller


def try_peer(caller: Caller, way: str, peer: Address) -> int:
    """The error code with which a peer is refused; for a Send indication 403 stands for silence."""
    server = caller.world.server
    if way == "permission":
        return caller.code(Method.CREATE_PERMISSION, a.XorPeerAddress(peer))
    if way == "channel":
        return caller.code(Method.CHANNEL_BIND, a.ChannelNumber(0x4000), a.XorPeerAddress(peer))
    if way == "connect":
        answer = caller.send(caller.signed(Method.CONNECT, a.XorPeerAddress(peer)))
        event = server.next_event()
        assert (answer is None) == isinstance(event, Dial)
        return 0 if answer is None else error_code(answer)
    proof = (a.XorPeerAddress(peer), a.Data(b"x"))
    caller.give(Message(Method.SEND, MessageClass.INDICATION, b"i" * 12, proof).encode())
    return 403 if server.next_transmit() is None else 0
