"""What the owner of a laboratory tells its wire, one JSON object a line, and what the wire answers."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from crowline.lab.behaviour import NatBehaviour
from crowline.lab.impairment import Impairment
from crowline.lab.profile import Firewall, PortMapping


class Command(Struct, frozen=True, tag_field="do", forbid_unknown_fields=True):
    """Names are those that the owner gave to ports and gateways."""


class AddGateway(Command, frozen=True, tag="gateway"):
    """A translator, or without `behaviour` none; `outer` names the gateway that it is behind, "" for none.

    With `port_mapping` it opens ports for hosts that ask at its inside address `own`.
    """

    name: str
    external: str = ""
    behaviour: NatBehaviour | None = None
    outer: str = ""
    nat64: bool = False
    own: str = ""
    port_mapping: PortMapping = PortMapping.NONE


class AddPort(Command, frozen=True, tag="port"):
    """A tunnel device for those hosts; `firewalled` guards the IPv6 ones at their gateway."""

    name: str
    namespace: str
    device: str
    hosts: list[str]
    outer: str = ""
    firewalled: bool = False


class SetImpairment(Command, frozen=True, tag="impair"):
    """Both directions between that place and the router."""

    name: str
    impairment: Impairment


class SetFirewall(Command, frozen=True, tag="firewall"):
    """`proxy` is the host that `Firewall.PROXY_ONLY` lets out to."""

    name: str
    firewall: Firewall
    proxy: str = ""


class SetCore(Command, frozen=True, tag="core"):
    """How many hops it is through the router in the middle."""

    hops: int


class GetCounters(Command, frozen=True, tag="counters"):
    """What became of the packets so far."""


class Settle(Command, frozen=True, tag="settle"):
    """Answered when nothing is on its way, after `patience` seconds at the latest."""

    patience: float


class Advance(Command, frozen=True, tag="advance"):
    """Let the translators believe that so many seconds have passed."""

    seconds: float


class Bye(Command, frozen=True, tag="bye"):
    """The owner removes everything itself."""


AnyCommand: TypeAlias = (
    AddGateway | AddPort | SetImpairment | SetFirewall | SetCore | GetCounters | Settle | Advance | Bye
)


class Answer(Struct, frozen=True):
    """`error` is empty when all went well."""

    error: str = ""
    counters: dict[str, int] = {}
