"""What a gateway says when it refuses (WANIPConnection:2 §2.5, WANIPv6FirewallControl:1 §2.5)."""

from __future__ import annotations

from enum import IntEnum


class UpnpError(IntEnum):
    """The codes of refusals. Those of pinholes and of port mappings do not overlap."""

    INVALID_ACTION = 401
    INVALID_ARGUMENTS = 402
    INVALID_VARIABLE = 404
    ACTION_FAILED = 501
    VALUE_INVALID = 600
    VALUE_OUT_OF_RANGE = 601
    NOT_IMPLEMENTED = 602
    OUT_OF_MEMORY = 603
    HUMAN_NEEDED = 604
    TEXT_TOO_LONG = 605
    NOT_AUTHORIZED = 606
    PINHOLE_SPACE_EXHAUSTED = 701
    FIREWALL_DISABLED = 702
    INBOUND_NOT_ALLOWED = 703
    NO_SUCH_PINHOLE = 704
    PROTOCOL_NOT_SUPPORTED = 705
    INTERNAL_PORT_WILDCARD = 706
    PROTOCOL_WILDCARD = 707
    REMOTE_WILDCARD = 708
    NO_PACKET_SENT = 709
    ARRAY_INDEX_INVALID = 713
    NO_SUCH_ENTRY = 714
    REMOTE_HOST_WILDCARD = 715
    EXTERNAL_PORT_WILDCARD = 716
    CONFLICT = 718
    SAME_PORTS_REQUIRED = 724
    ONLY_PERMANENT_LEASES = 725
    REMOTE_HOST_ONLY_WILDCARD = 726
    EXTERNAL_PORT_ONLY_WILDCARD = 727
    NO_PORTS_AVAILABLE = 728
    CONFLICT_WITH_OTHER_MECHANISM = 729
    PORT_MAPPING_NOT_FOUND = 730
    READ_ONLY = 731
    INTERNAL_PORT_WILDCARD_NOT_PERMITTED = 732
    INCONSISTENT_PARAMETERS = 733

    @property
    def words(self) -> str:
        """A phrase for people that follows "the gateway says:"."""
        return _WORDS[self]


def words_of(code: int) -> str:
    """The phrase for any code, known or not."""
    try:
        return UpnpError(code).words
    except ValueError:
        return f"an error of its own, {code}"


_WORDS = {
    UpnpError.INVALID_ACTION: "it does not know this action",
    UpnpError.INVALID_ARGUMENTS: "the arguments are not those it expects",
    UpnpError.INVALID_VARIABLE: "it does not know this variable",
    UpnpError.ACTION_FAILED: "the action failed",
    UpnpError.VALUE_INVALID: "a value is not one it takes",
    UpnpError.VALUE_OUT_OF_RANGE: "a value is out of its range",
    UpnpError.NOT_IMPLEMENTED: "the action is not implemented",
    UpnpError.OUT_OF_MEMORY: "it is out of memory",
    UpnpError.HUMAN_NEEDED: "somebody has to allow it at the router",
    UpnpError.TEXT_TOO_LONG: "a text is too long for it",
    UpnpError.NOT_AUTHORIZED: "it does not allow this",
    UpnpError.PINHOLE_SPACE_EXHAUSTED: "it has no space for another pinhole",
    UpnpError.FIREWALL_DISABLED: "its firewall is off, so that no pinhole is needed",
    UpnpError.INBOUND_NOT_ALLOWED: "its settings forbid pinholes",
    UpnpError.NO_SUCH_PINHOLE: "there is no such pinhole",
    UpnpError.PROTOCOL_NOT_SUPPORTED: "it does not support this protocol",
    UpnpError.INTERNAL_PORT_WILDCARD: "the inside port must be given",
    UpnpError.PROTOCOL_WILDCARD: "the protocol must be given",
    UpnpError.REMOTE_WILDCARD: "the other side's address must be given",
    UpnpError.NO_PACKET_SENT: "no packet has passed the pinhole yet",
    UpnpError.ARRAY_INDEX_INVALID: "the list of mappings ends before this one",
    UpnpError.NO_SUCH_ENTRY: "there is no such mapping",
    UpnpError.REMOTE_HOST_WILDCARD: "the other side's address must be given",
    UpnpError.EXTERNAL_PORT_WILDCARD: "the outside port must be given",
    UpnpError.CONFLICT: "the port is mapped for another device",
    UpnpError.SAME_PORTS_REQUIRED: "the outside port must be the inside one",
    UpnpError.ONLY_PERMANENT_LEASES: "it has only mappings without an end",
    UpnpError.REMOTE_HOST_ONLY_WILDCARD: "the other side's address must be left open",
    UpnpError.EXTERNAL_PORT_ONLY_WILDCARD: "the outside port must be left open",
    UpnpError.NO_PORTS_AVAILABLE: "it has no port left",
    UpnpError.CONFLICT_WITH_OTHER_MECHANISM: "the port is in use for something else",
    UpnpError.PORT_MAPPING_NOT_FOUND: "there is no mapping in that range",
    UpnpError.READ_ONLY: "the mapping cannot be changed",
    UpnpError.INTERNAL_PORT_WILDCARD_NOT_PERMITTED: "the inside port must be given",
    UpnpError.INCONSISTENT_PARAMETERS: "the values contradict each other",
}
