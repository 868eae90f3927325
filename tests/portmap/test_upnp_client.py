"""A gateway's client against routers of every temper, in virtual time."""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.portmap.upnp.client import CLOSE_LIMIT, MAX_HOLDINGS, REQUEST_LIMIT, GatewayClient
from crowline.portmap.upnp.events import Closed, MapFailed, Mapped, NoService, Outside, OutsideAddress
from crowline.portmap.upnp.holding import PERMANENT_CHECK
from crowline.portmap.upnp.mapping import MAX_TRIES
from crowline.portmap.upnp.pinhole_actions import Pinhole, PinholeProtocol
from crowline.portmap.upnp.port_actions import PortMapping, Protocol
from upnp_router import (
    FIREWALL,
    LOCATION,
    OWN,
    OWN_IPV6,
    PPP,
    PUBLIC,
    V1,
    V2,
    Refuse,
    Router,
    events,
    fault,
    settle,
    started,
    success,
)

LEASE = 3600
WANTED = PortMapping(Protocol.UDP, 4000, 5000, OWN, LEASE)
PINHOLE = Pinhole(PinholeProtocol.UDP, OWN_IPV6, 5000, LEASE)
KEY = ("UDP", 4000)
OTHER = {
    "NewInternalClient": "192.168.1.9",
    "NewInternalPort": "1",
    "NewEnabled": "1",
    "NewLeaseDuration": "0",
}


def mapped(port: int = 4000, lease: int = LEASE, verified: bool = True, host: str = PUBLIC) -> Mapped:
    return Mapped(1, port, Address(host, port), lease, verified)


def run_until(client: GatewayClient, router: Router, end: float) -> list[object]:
    """All events until `end`, jumping from one deadline to the next."""
    found: list[object] = []
    for _ in range(10_000):
        due = client.next_timeout()
        if due is None or due > end:
            return found
        client.handle_timeout(due)
        found += settle(client, router, due)
    raise AssertionError("the client's time stands still")


# --- the gateway ------------------------------------------------------------------------------------------


def test_the_gateway_says_its_address_first() -> None:
    """The description, then the outside address."""
    client = GatewayClient(LOCATION, entropy=bytes)
    client.start(0.0)
    request = client.next_request()
    assert request is not None and (request.method, request.url) == ("GET", LOCATION)
    assert client.next_request() is None
    client.receive_answer(request.number, *(Router().answer(request) or (0, b"")), 0.1)
    assert settle(client, Router(), 0.2) == [OutsideAddress(PUBLIC, Outside.PUBLIC)]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("10.0.0.1", OutsideAddress("10.0.0.1", Outside.PRIVATE)),
        ("192.168.0.2", OutsideAddress("192.168.0.2", Outside.PRIVATE)),
        ("100.64.3.4", OutsideAddress("100.64.3.4", Outside.PRIVATE)),
        ("0.0.0.0", OutsideAddress(None, Outside.ABSENT)),
        ("127.0.0.1", OutsideAddress(None, Outside.ABSENT)),
        ("", OutsideAddress(None, Outside.ABSENT)),
        ("router", OutsideAddress(None, Outside.ABSENT)),
        ("::1", OutsideAddress(None, Outside.ABSENT)),
    ],
)
def test_another_nat_behind_it_and_no_address_are_told_apart(said: str, expected: OutsideAddress) -> None:
    """A private outside address means double NAT; nonsense means none."""
    router = Router(outside=said)
    client = GatewayClient(LOCATION, entropy=bytes)
    client.start(0.0)
    assert settle(client, router, 0.0) == [expected]


def test_of_several_lines_the_one_that_is_up_is_used() -> None:
    """Routers list the line they do not use as well."""
    router = Router(services=((V1, "/ip"), (PPP, "/ppp")))
    inner = router.do_GetExternalIPAddress
    said = iter(["", PUBLIC])
    router.do_GetExternalIPAddress = lambda values: inner(values) | {"NewExternalIPAddress": next(said)}  # type: ignore[method-assign]
    client = GatewayClient(LOCATION, entropy=bytes)
    client.start(0.0)
    assert settle(client, router, 0.0) == [OutsideAddress(PUBLIC, Outside.PUBLIC)]
    client.open(WANTED, 1.0)
    request = client.next_request()
    assert request is not None and request.url.target == "/ppp"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b""),
        (302, b""),
        (200, b"<html>"),
        (200, b"<root/>"),
        (200, b"<!DOCTYPE root><root/>"),
        (200, b"<a>" * 60_000),
    ],
)
def test_a_gateway_without_services_fails_what_is_asked(status: int, body: bytes) -> None:
    """What waits for the description and what comes later."""
    client = GatewayClient(LOCATION, entropy=bytes)
    client.start(0.0)
    first = client.open(WANTED, 0.0)
    request = client.next_request()
    assert request is not None
    client.receive_answer(request.number, status, body, 0.1)
    no_service, failed = events(client)
    assert isinstance(no_service, NoService) and no_service.words
    assert isinstance(failed, MapFailed) and failed.key == first
    second = client.open(PINHOLE, 0.2)
    (failed,) = events(client)
    assert isinstance(failed, MapFailed) and failed.key == second


def test_a_silent_gateway_is_given_up() -> None:
    """By the client's own clock, and a late answer changes nothing."""
    client = GatewayClient(LOCATION, entropy=bytes)
    client.start(0.0)
    request = client.next_request()
    assert request is not None
    assert client.next_timeout() == REQUEST_LIMIT
    client.handle_timeout(REQUEST_LIMIT)
    assert [type(each) for each in events(client)] == [NoService]
    client.receive_answer(request.number, *(Router().answer(request) or (0, b"")), REQUEST_LIMIT + 1)
    assert events(client) == [] and client.counters["late"] == 1


# --- mappings ---------------------------------------------------------------------------------------------


def test_a_mapping_is_made_and_verified() -> None:
    """The gateway is asked afterwards whether the port leads to us."""
    router = Router()
    client = started(router)
    assert client.open(WANTED, 1.0) == 1
    assert settle(client, router, 1.0) == [mapped()]
    assert router.actions() == ["GetExternalIPAddress", "AddPortMapping", "GetSpecificPortMappingEntry"]


@pytest.mark.parametrize("code", [725, 402, 501])
def test_without_leases_a_mapping_without_end_is_made(code: int) -> None:
    """725 says so; some routers say something else."""

    def refuse(action: str, values: dict[str, str]) -> None:
        if action == "AddPortMapping" and values["NewLeaseDuration"] != "0":
            raise Refuse(code)

    router = Router(before=refuse)
    client = started(router)
    client.open(WANTED, 1.0)
    assert settle(client, router, 1.0) == [mapped(lease=0)]
    assert client.next_timeout() == 1.0 + PERMANENT_CHECK
    client.handle_timeout(1.0 + PERMANENT_CHECK)
    router.asked.clear()
    settle(client, router, 1.0 + PERMANENT_CHECK)
    assert router.asked[1][1]["NewLeaseDuration"] == "0", "what was learnt is remembered"


def test_on_version_1_a_taken_port_is_replaced_by_another() -> None:
    """A random one of those that are free to use."""
    router = Router(entries={KEY: OTHER})
    client = started(router)
    client.open(WANTED, 1.0)
    port = 1024 + 0x07070707 % 64512
    assert settle(client, router, 1.0) == [mapped(port)]
    assert router.entries[KEY] is OTHER


def test_on_version_2_the_gateway_chooses_another_port() -> None:
    """By AddAnyPortMapping, whose answer counts."""
    router = Router(services=((V2, "/ctl"),), entries={KEY: OTHER})
    client = started(router)
    client.open(WANTED, 1.0)
    assert settle(client, router, 1.0) == [mapped(4001)]


def test_a_version_2_without_its_actions_is_treated_as_version_1() -> None:
    """Some say they are 2 and do not know AddAnyPortMapping."""

    def refuse(action: str, values: dict[str, str]) -> None:
        if action == "AddAnyPortMapping":
            raise Refuse(401)

    router = Router(services=((V2, "/ctl"),), entries={KEY: OTHER}, before=refuse)
    client = started(router)
    client.open(WANTED, 1.0)
    assert settle(client, router, 1.0) == [mapped(1024 + 0x07070707 % 64512)]


def test_where_both_ports_must_be_the_same_they_are() -> None:
    """724."""

    def refuse(action: str, values: dict[str, str]) -> None:
        if action == "AddPortMapping" and values["NewExternalPort"] != values["NewInternalPort"]:
            raise Refuse(724)

    router = Router(before=refuse)
    client = started(router)
    client.open(WANTED, 1.0)
    assert settle(client, router, 1.0) == [mapped(5000)]


def test_where_the_same_port_is_taken_nothing_is_forced() -> None:
    """724 and then 718 leave nothing to try."""

    def refuse(action: str, values: dict[str, str]) -> None:
        if action == "AddPortMapping" and values["NewExternalPort"] != values["NewInternalPort"]:
            raise Refuse(724)

    router = Router(before=refuse, entries={("UDP", 5000): OTHER})
    client = started(router)
    client.open(WANTED, 1.0)
    (failed,) = settle(client, router, 1.0)
    assert isinstance(failed, MapFailed) and failed.code == 718


@pytest.mark.parametrize("code", [606, 728, 715, 716, 726, 727, 799, 0])
def test_a_clear_no_is_final(code: int) -> None:
    """One request, the gateway's code, and its words for people."""

    def refuse(action: str, values: dict[str, str]) -> None:
        if action == "AddPortMapping":
            raise Refuse(code)

    router = Router(before=refuse)
    client = started(router)
    client.open(WANTED, 1.0)
    (failed,) = settle(client, router, 1.0)
    assert isinstance(failed, MapFailed)
    assert (failed.code, failed.was_open) == (code, False) and failed.words
    assert router.actions().count("AddPortMapping") == 1


def test_an_action_that_failed_and_yet_was_done_counts() -> None:
    """501 after the mapping was made: the gateway is asked what it has."""
    router = Router()
    inner = router.do_AddPortMapping

    def add(values: dict[str, str]) -> dict[str, object]:
        inner(values)
        raise Refuse(501)

    router.do_AddPortMapping = add  # type: ignore[method-assign]
    client = started(router)
    client.open(WANTED, 1.0)
    assert settle(client, router, 1.0) == [mapped()]


def test_a_liar_that_always_says_taken_is_given_up() -> None:
    """After a bounded number of tries."""

    def refuse(action: str, values: dict[str, str]) -> None:
        if action.startswith("Add"):
            raise Refuse(718)

    router = Router(services=((V2, "/ctl"),), before=refuse)
    client = started(router)
    client.open(WANTED, 1.0)
    (failed,) = settle(client, router, 1.0)
    assert isinstance(failed, MapFailed) and failed.code == 718
    assert sum(action.startswith("Add") for action in router.actions()) == MAX_TRIES


def test_a_liar_that_says_yes_and_maps_to_another_is_given_up() -> None:
    """The verification names somebody else, every time."""
    router = Router()
    router.do_GetSpecificPortMappingEntry = lambda values: OTHER  # type: ignore[method-assign, assignment, return-value]
    client = started(router)
    client.open(WANTED, 1.0)
    (failed,) = settle(client, router, 1.0)
    assert isinstance(failed, MapFailed)
    assert router.actions().count("AddPortMapping") == MAX_TRIES


@pytest.mark.parametrize("code", [401, 501, 602, 714])
def test_a_gateway_that_cannot_be_asked_is_believed_and_not_verified(code: int) -> None:
    """Many do not know GetSpecificPortMappingEntry."""

    def refuse(action: str, values: dict[str, str]) -> None:
        if action == "GetSpecificPortMappingEntry":
            raise Refuse(code)

    router = Router(before=refuse)
    client = started(router)
    client.open(WANTED, 1.0)
    assert settle(client, router, 1.0) == [mapped(verified=False)]


def test_a_shorter_lease_than_asked_for_counts() -> None:
    """The gateway may clamp it; the renewal follows."""
    router = Router()
    inner = router.do_GetSpecificPortMappingEntry
    router.do_GetSpecificPortMappingEntry = lambda values: inner(values) | {"NewLeaseDuration": 120}  # type: ignore[method-assign]
    client = started(router)
    client.open(WANTED, 1.0)
    assert settle(client, router, 1.0) == [mapped(lease=120)]
    assert client.next_timeout() == 61.0


@pytest.mark.parametrize(
    "answer",
    [
        None,
        (302, b""),
        (200, b"<html/>"),
        (200, b"<a>" * 1000),
        (500, b"<!DOCTYPE a>" + fault(725)),
        (200, success("GetStatusInfo", V1)),
    ],
)
def test_answers_that_cannot_be_understood_fail_the_mapping(answer: tuple[int, bytes] | None) -> None:
    """Once is bad luck, twice is enough."""
    router = Router()
    client = started(router)
    router.rewrite = lambda status, body: answer
    client.open(WANTED, 1.0)
    (failed,) = settle(client, router, 1.0)
    assert isinstance(failed, MapFailed) and failed.code is None and failed.words
    assert router.actions().count("AddPortMapping") == 2


def test_requests_are_made_one_at_a_time_and_each_has_its_time() -> None:
    """A slow router is not asked the next thing while it thinks."""
    router = Router()
    client = started(router)
    client.open(WANTED, 1.0)
    client.open(PortMapping(Protocol.TCP, 4000, 5000, OWN, LEASE), 1.0)
    request = client.next_request()
    assert request is not None and client.next_request() is None
    client.handle_timeout(1.0 + REQUEST_LIMIT)
    client.receive_answer(request.number, 200, success("AddPortMapping", V1), 10.0)
    assert client.counters == {"unanswered": 1, "late": 1}
    found = settle(client, router, 10.0)
    assert [(each.key, type(each)) for each in found if isinstance(each, Mapped)] == [
        (1, Mapped),
        (2, Mapped),
    ]


def test_a_request_that_nobody_made_in_time_is_not_made_later() -> None:
    """A driver that was asleep finds the next request only, and its answer is awaited."""
    router = Router()
    client = started(router)
    client.open(WANTED, 1.0)
    client.handle_timeout(1.0 + REQUEST_LIMIT)
    request = client.next_request()
    assert request is not None and b"GetSpecificPortMappingEntry" in request.body
    assert client.next_request() is None


def test_too_many_mappings_are_misuse() -> None:
    """And so is one before the start."""
    with pytest.raises(UsageError):
        GatewayClient(LOCATION, entropy=bytes).open(WANTED, 0.0)
    client = started(Router())
    with pytest.raises(UsageError):
        client.start(1.0)
    for port in range(1, MAX_HOLDINGS + 1):
        client.open(PortMapping(Protocol.UDP, port, port, OWN, LEASE), 0.0)
    with pytest.raises(UsageError):
        client.open(WANTED, 0.0)


# --- over time --------------------------------------------------------------------------------------------


def test_a_mapping_is_renewed_at_half_of_its_time() -> None:
    """Silently, for as long as it works: the same port, no event."""
    router = Router()
    client = started(router)
    client.open(WANTED, 0.0)
    settle(client, router, 0.0)
    router.asked.clear()
    assert run_until(client, router, 10 * LEASE) == []
    assert router.actions().count("AddPortMapping") == 20
    assert {values["NewExternalPort"] for name, values in router.asked if name[:3] == "Add"} == {"4000"}


def test_a_gateway_that_forgot_is_told_again() -> None:
    """At the next renewal, or at once when it was seen to restart."""
    router = Router()
    client = started(router)
    client.open(WANTED, 0.0)
    settle(client, router, 0.0)
    router.entries.clear()
    client.refresh(10.0)
    assert settle(client, router, 10.0) == []
    assert router.entries[KEY]["NewInternalClient"] == OWN
    assert client.next_timeout() == 10.0 + LEASE / 2


def test_a_new_outside_address_is_told_with_what_is_mapped_there() -> None:
    """The old address is void for all mappings."""
    router = Router()
    client = started(router)
    client.open(WANTED, 0.0)
    settle(client, router, 0.0)
    router.outside = "44.1.1.6"
    assert run_until(client, router, LEASE) == [
        OutsideAddress("44.1.1.6", Outside.PUBLIC),
        mapped(host="44.1.1.6"),
    ]


def test_a_router_that_refuses_to_renew_its_own_entry_is_made_to() -> None:
    """718 for our own mapping: it is deleted and made again."""

    def refuse(action: str, values: dict[str, str]) -> None:
        if action == "AddPortMapping" and KEY in router.entries:
            raise Refuse(718)

    router = Router(before=refuse)
    client = started(router)
    client.open(WANTED, 0.0)
    settle(client, router, 0.0)
    assert run_until(client, router, LEASE) == []
    assert KEY in router.entries and "DeletePortMapping" in router.actions()


def test_an_entry_that_cannot_be_deleted_is_left_for_another_port() -> None:
    """It is deleted once; when that has not helped, the mapping moves."""

    def refuse(action: str, values: dict[str, str]) -> None:
        if action == "AddPortMapping" and values["NewExternalPort"] == "4000":
            raise Refuse(718)

    router = Router(
        before=refuse, entries={KEY: OTHER | {"NewInternalClient": OWN, "NewInternalPort": "5000"}}
    )
    router.do_DeletePortMapping = lambda values: {}  # type: ignore[method-assign]
    client = started(router)
    client.open(WANTED, 0.0)
    assert settle(client, router, 0.0) == [mapped(1024 + 0x07070707 % 64512)]
    assert router.actions().count("DeletePortMapping") == 1


def test_a_mapping_that_was_given_away_moves() -> None:
    """At its renewal the port is somebody else's: another is taken and told."""
    router = Router()
    client = started(router)
    client.open(WANTED, 0.0)
    settle(client, router, 0.0)
    router.entries[KEY] = OTHER
    assert run_until(client, router, LEASE / 2) == [mapped(1024 + 0x07070707 % 64512)]


def test_a_mapping_that_cannot_be_renewed_ends_with_its_lease() -> None:
    """It is tried again, more and more often but not too often, and then said to be lost."""
    router = Router()
    client = started(router)
    client.open(WANTED, 0.0)
    settle(client, router, 0.0)
    router.asked.clear()
    router.rewrite = lambda status, body: None
    (lost,) = run_until(client, router, 2 * LEASE)
    assert isinstance(lost, MapFailed) and lost.was_open and lost.key == 1
    assert 10 <= router.actions().count("AddPortMapping") <= 40
    assert client.next_timeout() is None


def test_a_slow_router_may_answer_a_renewal_after_the_end() -> None:
    """While it is being asked the mapping is not given up, and time does not stand still."""
    router = Router()
    client = started(router)
    client.open(PortMapping(Protocol.UDP, 4000, 5000, OWN, 10), 0.0)
    settle(client, router, 0.0)
    client.handle_timeout(9.0)
    requests = []
    for now in (11.0, 13.0, 15.0):
        request = client.next_request()
        assert request is not None
        requests.append(request)
        client.handle_timeout(now)
        due = client.next_timeout()
        assert due is not None and due > now
        client.receive_answer(request.number, *(router.answer(request) or (0, b"")), now)
    assert len(requests) == 3 and events(client) == []
    assert client.next_timeout() == 20.0


def test_a_short_lease_does_not_make_the_client_race() -> None:
    """A router that grants one second is asked every five, and the loss is told."""
    router = Router()
    inner = router.do_GetSpecificPortMappingEntry
    router.do_GetSpecificPortMappingEntry = lambda values: inner(values) | {"NewLeaseDuration": 1}  # type: ignore[method-assign]
    client = started(router)
    client.open(WANTED, 0.0)
    assert settle(client, router, 0.0) == [mapped(lease=1)]
    (lost,) = run_until(client, router, 60.0)
    assert isinstance(lost, MapFailed) and lost.was_open


# --- the end ----------------------------------------------------------------------------------------------


def test_what_is_released_is_deleted() -> None:
    """Without an event, and only once."""
    router = Router()
    client = started(router)
    key = client.open(WANTED, 0.0)
    settle(client, router, 0.0)
    client.release(key, 1.0)
    client.release(key, 1.0)
    client.release(99, 1.0)
    assert settle(client, router, 1.0) == []
    assert router.entries == {} and router.actions().count("DeletePortMapping") == 1
    assert client.next_timeout() is None


def test_what_is_released_while_it_is_made_is_deleted_too() -> None:
    """Nothing of it stays, and nothing is told of it."""
    router = Router()
    client = started(router)
    key = client.open(WANTED, 0.0)
    client.release(key, 0.0)
    assert settle(client, router, 0.5) == []
    assert router.entries == {} and router.actions()[-1] == "DeletePortMapping"


def test_what_is_released_while_it_waits_is_never_made() -> None:
    """The gateway hears nothing of it."""
    router = Router()
    client = started(router)
    client.open(WANTED, 0.0)
    waiting = client.open(PortMapping(Protocol.TCP, 4001, 5001, OWN, LEASE), 0.0)
    client.release(waiting, 0.0)
    assert settle(client, router, 0.5) == [mapped()]
    assert list(router.entries) == [KEY] and router.actions().count("AddPortMapping") == 1


def test_closing_deletes_everything() -> None:
    """What was open, what is being opened; what only waits is never made."""
    router = Router()
    client = started(router)
    client.open(WANTED, 0.0)
    settle(client, router, 0.0)
    client.open(PortMapping(Protocol.TCP, 4000, 5000, OWN, LEASE), 1.0)
    client.open(PortMapping(Protocol.TCP, 4002, 5002, OWN, LEASE), 1.0)
    client.close(1.0)
    client.close(1.0)
    assert settle(client, router, 1.0) == [Closed(0)]
    assert router.entries == {} and client.is_closed
    assert router.actions().count("AddPortMapping") == 2
    assert client.next_timeout() is None
    with pytest.raises(UsageError):
        client.open(WANTED, 2.0)


def test_closing_with_several_that_wait_deletes_all_that_are_open() -> None:
    """Whatever the order in which they were asked for."""
    router = Router()
    client = started(router)
    for port in (1, 2, 3):
        client.open(PortMapping(Protocol.UDP, port, port, OWN, LEASE), 0.0)
    settle(client, router, 0.0)
    assert len(router.entries) == 3
    client.close(1.0)
    assert settle(client, router, 1.0) == [Closed(0)]
    assert router.entries == {}


def test_closing_does_not_wait_for_a_silent_gateway() -> None:
    """What could not be deleted is counted; its lease ends it."""
    router = Router()
    client = started(router)
    client.open(WANTED, 0.0)
    settle(client, router, 0.0)
    client.close(1.0)
    assert client.next_timeout() == 1.0 + CLOSE_LIMIT
    client.handle_timeout(1.0 + CLOSE_LIMIT)
    assert events(client) == [Closed(1)]
    assert client.next_request() is None and client.next_timeout() is None


def test_closing_before_the_description_ends_at_once() -> None:
    """There is nothing to delete."""
    client = GatewayClient(LOCATION, entropy=bytes)
    client.start(0.0)
    client.open(WANTED, 0.0)
    client.close(0.0)
    assert events(client) == [Closed(0)]
    assert client.next_request() is None


# --- pinholes ---------------------------------------------------------------------------------------------

V6 = ((V1, "/ctl"), (FIREWALL, "/6"))


def test_a_pinhole_is_opened_renewed_and_closed() -> None:
    """By its number, which the gateway gave."""
    router = Router(services=V6)
    client = started(router)
    client.open(PINHOLE, 0.0)
    assert settle(client, router, 0.0) == [Mapped(1, 5000, Address(OWN_IPV6, 5000), LEASE, False)]
    assert run_until(client, router, LEASE) == []
    assert router.actions().count("UpdatePinhole") == 2
    client.close(LEASE)
    assert settle(client, router, LEASE) == [Closed(0)]
    assert router.pinholes == {}


def test_a_pinhole_that_was_forgotten_is_opened_anew() -> None:
    """704 at its renewal."""
    router = Router(services=V6)
    client = started(router)
    client.open(PINHOLE, 0.0)
    settle(client, router, 0.0)
    router.pinholes.clear()
    assert run_until(client, router, LEASE / 2) == []
    assert len(router.pinholes) == 1


def test_pinholes_need_no_port_mapping_service() -> None:
    """A gateway of IPv6 alone has none."""
    router = Router(services=((FIREWALL, "/6"),))
    client = GatewayClient(LOCATION, entropy=bytes)
    client.start(0.0)
    client.open(PINHOLE, 0.0)
    assert [type(each) for each in settle(client, router, 0.0)] == [NoService, Mapped]


def test_where_pinholes_are_forbidden_none_is_asked_for() -> None:
    """The gateway's own code for it."""
    router = Router(services=V6, firewall=(1, 0))
    client = started(router)
    client.open(PINHOLE, 0.0)
    (failed,) = settle(client, router, 0.0)
    assert isinstance(failed, MapFailed) and failed.code == 703
    assert "AddPinhole" not in router.actions()


def test_where_nothing_is_filtered_no_pinhole_is_needed() -> None:
    """It is open without one, and there is nothing to delete."""
    router = Router(services=V6, firewall=(0, 0))
    client = started(router)
    client.open(PINHOLE, 0.0)
    assert settle(client, router, 0.0) == [Mapped(1, 5000, Address(OWN_IPV6, 5000), 0, True)]
    client.close(1.0)
    assert settle(client, router, 1.0) == [Closed(0)]
    assert "DeletePinhole" not in router.actions()


@pytest.mark.parametrize("identity", ["", "many", "70000"])
def test_a_pinhole_without_a_number_is_none(identity: str) -> None:
    """It could be neither renewed nor closed."""
    router = Router(services=V6)
    router.do_AddPinhole = lambda values: {"UniqueID": identity}  # type: ignore[method-assign]
    client = started(router)
    client.open(PINHOLE, 0.0)
    (failed,) = settle(client, router, 0.0)
    assert isinstance(failed, MapFailed) and failed.words
