"""The search for the lifetime of a mapping, behind translators whose lifetimes are known, in virtual time."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Transmit
from crowline.lab.behaviour import Lifetimes, NatBehaviour
from crowline.lab.presets import HOME, PRESETS, SYMMETRIC
from crowline.lab.profile import Profile
from crowline.lab.virtual import Internet
from crowline.lab.virtual_site import build_site
from crowline.stun import attributes as a
from crowline.stun.binding_lifetime import WAITS, BindingLifetime, LifetimeFound
from crowline.stun.message import Message, MessageClass, parse
from crowline.stun.nat_discovery import BasesWanted
from crowline.stun.nat_findings import Reason
from nat_discoveries import SERVER, add_server

BASES = tuple(Address("10.0.0.2", 5000 + 7 * number) for number in range(len(WAITS) + 1))
OUTSIDE = "44.100.7.1"


def measure(profile: Profile, *, alternates: bool = True, loss: float = 0.0) -> tuple[LifetimeFound, float]:
    """What is found, and after how many seconds."""
    internet = Internet(1, loss=loss)
    add_server(internet, alternates=alternates)
    site = build_site(internet, profile, 7)
    search = BindingLifetime(SERVER, entropy=internet.random.randbytes)
    assert search.next_event() == BasesWanted(len(WAITS) + 1)
    node = internet.attach(search)
    sockets = tuple(Address(site.addresses[0], base.port) for base in BASES)
    for socket in sockets:
        internet.bind(node, site.host, socket)
    search.start(sockets, internet.now)
    internet.poke(node)
    assert internet.run(lambda: bool(node.events), limit=600.0)
    ((time, found),) = node.events
    assert isinstance(found, LifetimeFound)
    assert search.next_timeout() is None
    return found, time


@pytest.mark.parametrize("nat", [HOME, SYMMETRIC], ids=["cone", "symmetric"])
@pytest.mark.parametrize("refreshes", [True, False])
@pytest.mark.parametrize("seconds", [30.0, 40.0, 60.0, 120.0, 180.0, 300.0])
def test_a_lifetime_is_found_between_two_waits(nat: NatBehaviour, refreshes: bool, seconds: float) -> None:
    """The neighbours of the true value, soon after a mapping was seen dead."""
    box = replace(nat, lifetimes=Lifetimes(udp_idle=seconds), inbound_refreshes=refreshes)
    found, time = measure(Profile("any", (box,)))
    assert found.reason is None
    assert found.alive is not None
    assert found.dead is not None
    assert found.alive < seconds < found.dead
    assert (found.alive, found.dead) in list(pairwise(WAITS))
    assert time < found.dead + 3.0


def test_what_outlives_the_longest_wait_has_no_end() -> None:
    """A host without translator and filter."""
    found, _ = measure(PRESETS["public"])
    assert found == LifetimeFound(alive=WAITS[-1])


def test_loss_kills_no_mapping() -> None:
    """Requests are repeated."""
    found, _ = measure(PRESETS["short-lived"], loss=0.05)
    assert found.alive == pytest.approx(25.0, abs=1.0)
    assert found.dead == pytest.approx(35.0, abs=1.0)


def test_a_server_with_one_address_cannot_tell() -> None:
    """It refuses RESPONSE-PORT, and that is the reason; nobody waits for minutes."""
    found, time = measure(PRESETS["home"], alternates=False)
    assert found == LifetimeFound(reason=Reason.ONE_ADDRESS)
    assert time < 3.0


def test_where_udp_is_blocked_nothing_is_known() -> None:
    """No answer, at once."""
    found, time = measure(PRESETS["udp-blocked"])
    assert found == LifetimeFound(reason=Reason.NO_ANSWER)
    assert time < 3.0


class _Desk:
    """A search whose server is the test."""

    def __init__(self) -> None:
        numbers = iter(range(1, 1000))
        self.search = BindingLifetime(SERVER, entropy=lambda size: next(numbers).to_bytes(size, "big"))
        self.search.next_event()
        self.search.start(BASES, 0.0)

    def sent(self) -> list[Transmit]:
        sent = []
        while (transmit := self.search.next_transmit()) is not None:
            sent.append(transmit)
        return sent

    def answer(
        self, transmit: Transmit, now: float, *, local: Address | None = None, source: Address = SERVER
    ) -> None:
        assert transmit.local is not None
        request: Message = parse(transmit.data).message
        mapped = a.XorMappedAddress(Address(OUTSIDE, transmit.local.port))
        data = request.answer(MessageClass.SUCCESS, mapped).encode()
        self.search.receive(data, source, now, local or transmit.local)

    def open(self) -> Transmit:
        """All sockets are answered; the first question."""
        for transmit in self.sent():
            self.answer(transmit, 0.01)
        self.search.handle_timeout(WAITS[0])
        (question,) = self.sent()
        assert question.local == BASES[-1]
        return question


def test_a_mute_server_gets_three_packets_from_each_socket() -> None:
    """And no more, however often the machine is woken."""
    desk, sent = _Desk(), 0
    for tick in range(40):
        desk.search.handle_timeout(tick * 0.1)
        sent += len(desk.sent())
    assert sent == 3 * len(BASES)
    assert desk.search.next_event() == LifetimeFound(reason=Reason.NO_ANSWER)


def test_a_server_that_ignores_the_port_is_found_out() -> None:
    """It answers the asker in the control test: no mapping is called dead for that."""
    desk = _Desk()
    desk.answer(desk.open(), 1.01)
    assert desk.search.next_event() == LifetimeFound(reason=Reason.NOT_CHANGED)


def test_an_answer_from_elsewhere_or_at_another_socket_is_none() -> None:
    """The mapping counts as alive only by its own server's answer at its own socket."""
    desk = _Desk()
    question = desk.open()
    desk.answer(question, 1.01, local=BASES[3])
    desk.answer(question, 1.01, local=BASES[0], source=Address("44.1.0.9", 3478))
    desk.search.receive(b"noise", SERVER, 1.01, BASES[0])
    assert desk.search.counters == {"not_ours": 2, "malformed": 1}
    desk.answer(question, 1.02, local=BASES[0])
    assert desk.search.next_timeout() == WAITS[1]


def test_an_answer_at_the_asker_means_that_its_mapping_took_the_port() -> None:
    """RFC 5780 §4.6: the old one has expired."""
    desk = _Desk()
    desk.answer(desk.open(), 1.01, local=BASES[0])
    desk.search.handle_timeout(WAITS[1])
    (question,) = desk.sent()
    desk.answer(question, WAITS[1] + 0.01)
    assert desk.search.next_event() == LifetimeFound(alive=1.0, dead=25.0)


def test_a_machine_that_slept_says_how_long_it_waited() -> None:
    """Not how long it meant to wait."""
    desk = _Desk()
    desk.answer(desk.open(), 1.01, local=BASES[0])
    desk.search.handle_timeout(500.0)
    (question,) = desk.sent()
    assert question.local == BASES[-1]
    desk.search.handle_timeout(502.0)
    assert desk.search.next_event() == LifetimeFound(alive=1.0, dead=500.0)


def test_bases_are_the_callers_part() -> None:
    """As many as wanted, each once, and one start."""
    search = BindingLifetime(SERVER, entropy=bytes)
    for wrong in (BASES[:-1], (*BASES[:-1], BASES[0])):
        with pytest.raises(UsageError):
            search.start(wrong, 0.0)
    desk = _Desk()
    with pytest.raises(UsageError):
        desk.search.start(BASES, 0.0)
