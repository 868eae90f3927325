"""How gateways behave that map ports: a well-behaved one, and a zoo of those that are met in homes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

WEEK = 604_800  # seconds, the longest lease of WANIPConnection:2 (§2.3.18)
XML_TYPE = 'text/xml; charset="utf-8"'


class Document(Enum):
    """What a gateway sends where its description should be."""

    PLAIN = "plain"
    GIANT = "giant"  # well-formed, and without an end
    DEEP = "deep"  # elements inside each other, far beyond any use
    ENTITIES = "entities"  # a document type whose entities grow when they are read
    HALF = "half"  # the connection ends in the middle
    LOGIN_PAGE = "login page"  # HTML, as routers show it to browsers


@dataclass(frozen=True, slots=True)
class Temper:
    """How a gateway behaves. `summary` says it in a sentence; the other fields are facts about it.

    What it grants: `version` of its Internet Gateway Device; `is_ppp`: its line is dialled up, which makes
    its service another; `has_leases`: False for one that knows only mappings without an end (725); outside
    ports below `taken_below` are another device's (718); `same_ports`: outside and inside port must be the
    same (724); `allows`: False for one that refuses all (606); `opens`: False for one that says yes and
    does nothing; `renews`: False for one that refuses what it has already, to its owner too (718);
    `other_ports`: grants another port than the one that was asked for, where the protocol lets it;
    `longest_lease` and `forgets_after` in seconds, the first as granted and the second without a word;
    `outside`: what it says its outside host is, empty for the truth.

    How it speaks: `delay` in seconds before each HTTP answer; `is_silent`: takes HTTP connections and says
    nothing; `document`; `content_type`; `shouts`: its tags in upper case, with prefixes that nobody declared;
    `redirect`: where it sends every HTTP request; `location_host`: where it says its description is, empty
    for itself; `speaks_from`: the host that its datagrams come from, empty for itself; `repeats`: how often
    it sends each datagram.
    """

    summary: str
    version: int = 2
    is_ppp: bool = False
    has_leases: bool = True
    taken_below: int = 0
    same_ports: bool = False
    allows: bool = True
    opens: bool = True
    renews: bool = True
    other_ports: bool = False
    longest_lease: int = WEEK
    forgets_after: float | None = None
    outside: str = ""
    delay: float = 0.0
    is_silent: bool = False
    document: Document = Document.PLAIN
    content_type: str = XML_TYPE
    shouts: bool = False
    redirect: str = ""
    location_host: str = ""
    speaks_from: str = ""
    repeats: int = 1


STRANGER = "198.51.100.77"
"""A host that no gateway has anything to do with; nothing may ever be sent there."""

PLAIN = Temper("Version 2, and all as the specifications want it.")

ZOO: dict[str, Temper] = {
    "plain": PLAIN,
    "version-1": Temper("Version 1: chooses no ports itself, and a lease of 0 has no end.", version=1),
    "dialled-up": Temper("Its line is dialled up: WANPPPConnection.", version=1, is_ppp=True),
    "permanent-only": Temper("Knows only mappings without an end (725).", version=1, has_leases=False),
    "crowded": Temper(
        "Half of its ports are another device's (718), version 1.", version=1, taken_below=33000
    ),
    "crowded-2": Temper("Half of its ports are another device's (718), version 2.", taken_below=33000),
    "same-port-only": Temper("Outside and inside port must be the same (724).", version=1, same_ports=True),
    "wrong-types": Temper(
        "Calls its XML a page of HTML, and writes it with upper-case tags and undeclared prefixes.",
        version=1,
        content_type="text/html",
        shouts=True,
    ),
    "slow": Temper("Takes three seconds for each answer.", delay=3.0),
    "silent": Temper("Takes connections and never answers.", is_silent=True),
    "redirecting": Temper(
        "Sends every request on to another host.", redirect=f"http://{STRANGER}/rootDesc.xml"
    ),
    "giant": Temper("Its description has no end.", document=Document.GIANT),
    "deep": Temper("Its description is a hundred thousand elements deep.", document=Document.DEEP),
    "entities": Temper(
        "Its description has a document type, and entities that grow.", document=Document.ENTITIES
    ),
    "half": Temper("Its description ends in the middle.", document=Document.HALF),
    "login-page": Temper("Shows a login page where its description should be.", document=Document.LOGIN_PAGE),
    "elsewhere": Temper("Says that its description is on another host.", location_host=STRANGER),
    "ventriloquist": Temper("Another host answers in its place.", speaks_from=STRANGER),
    "stutterer": Temper("Sends every datagram three times.", repeats=3),
    "other-port": Temper("Grants another port than the one that was asked for.", other_ports=True),
    "short-lease": Temper("Grants two minutes, whatever is asked for.", longest_lease=120),
    "forgetful": Temper("Forgets mappings after a minute, without a word.", forgets_after=60.0),
    "liar": Temper("Says that it has an outside address that is somebody else's.", outside=STRANGER),
    "behind-another": Temper(
        "Has a private outside address: another NAT is behind it.", outside="192.168.100.2"
    ),
    "homeless": Temper("Has no outside address: its line is down.", outside="0.0.0.0"),
    "yes-man": Temper("Says yes to everything and opens nothing.", opens=False),
    "jealous": Temper("Refuses to renew what it has (718), to its owner too.", version=1, renews=False),
    "locked": Temper("Allows nobody to map ports (606).", allows=False),
}
"""By name. Those whose mappings work when they are asked in the right way are `WORKING`."""

WORKING = (
    "plain",
    "version-1",
    "dialled-up",
    "permanent-only",
    "crowded",
    "crowded-2",
    "same-port-only",
    "wrong-types",
    "slow",
    "stutterer",
    "other-port",
    "short-lease",
    "jealous",
)
