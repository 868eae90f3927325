"""Places that users describe themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from crowline.base.errors import LocalProblem, UsageError
from crowline.lab.behaviour import Allocation, Filtering, Lifetimes, Mapping, NatBehaviour
from crowline.lab.places_file import load_places
from crowline.lab.profile import Ipv6, Profile
from crowline.lab.virtual_attempt import virtual_attempt

OFFICE = """
[office]
summary = "The box in the office"
ipv6 = "firewalled"

[[office.nats]]
mapping = "endpoint-independent"
filtering = "address-dependent"
allocation = { kind = "sequential", step = 2 }
lifetimes = { udp_idle = 60 }

[flat]
"""


def load(tmp_path: Path, text: str) -> dict[str, Profile]:
    file = tmp_path / "places.toml"
    file.write_text(text)
    return load_places(file)


def test_a_file_describes_places_in_the_words_of_the_rfc(tmp_path: Path) -> None:
    """What is not said is as in the classes; the place can be lived in."""
    places = load(tmp_path, OFFICE)
    nat = NatBehaviour(
        Mapping.ENDPOINT_INDEPENDENT,
        Filtering.ADDRESS_DEPENDENT,
        Allocation.sequential(2),
        lifetimes=Lifetimes(udp_idle=60),
    )
    office = Profile("office", (nat,), ipv6=Ipv6.FIREWALLED, summary="The box in the office")
    assert places == {"office": office, "flat": Profile("flat")}
    assert virtual_attempt(places["office"], places["flat"], 1).kind == "direct"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[office", "is not TOML"),
        ("[home]", "home is a preset already"),
        ('["My Box"]', "no name for a place"),
        ("office = 3", "3 is not a table"),
        ("[office]\nnat = []", "'nat' means nothing there"),
        ("[office]\nname = 'x'", "'name' means nothing there"),
        ("[office]\nnats = [3]", "3 is not a table"),
        ("[office]\nnats = 3", "The place office"),
        ("[office]\nnats = [{ mapping = 'endpoint-independent' }]", "missing required field `filtering`"),
        ("[office]\nipv6 = 'maybe'", "Invalid enum value 'maybe'"),
        ("[office]\nport_mapping = 'upnp'", "a port is mapped by a translator"),
    ],
)
def test_what_cannot_be_meant_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    """A sentence about the place and the word that is wrong, never a guess."""
    with pytest.raises(UsageError, match=sentence):
        load(tmp_path, text)


def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    """A problem of this machine, with the name."""
    with pytest.raises(LocalProblem, match=r"places.toml cannot be read"):
        load_places(tmp_path / "places.toml")
