"""Who answered: the server, or a network that wants a sign-in."""

from __future__ import annotations

import pytest

from crowline.diagnosis.facts import Portal, PortalFacts
from crowline.diagnosis.portals import MAX_LOGIN, judge

HOST, TOKEN = "44.1.0.1", "0123456789abcdef"
NONE, FOUND, UNKNOWN = Portal.NONE, Portal.FOUND, Portal.UNKNOWN


def judged(status: int, location: str = "", body: bytes = b"", *, is_hub: bool = True) -> PortalFacts:
    return judge(HOST, TOKEN, status, location, body, is_hub=is_hub)


def test_the_server_says_the_token_back() -> None:
    """Nobody else knows that it would."""
    assert judged(200, body=f"crowline {TOKEN}\n".encode()) == PortalFacts(NONE)


def test_another_token_is_a_page_out_of_a_cache_or_a_portal() -> None:
    """Whoever repeats an old answer answers in the server's place."""
    assert judged(200, body=b"crowline feed\n") == PortalFacts(FOUND)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_elsewhere_is_a_portal(status: int) -> None:
    """Where it leads is told, without the part in which such pages put secrets."""
    found = judged(status, "https://login.example/here?mac=00:11&token=1#x")
    assert found == PortalFacts(FOUND, "https://login.example/here")


@pytest.mark.parametrize("location", [f"https://{HOST}/", "/elsewhere", ""])
def test_a_redirect_of_the_server_to_itself_is_none(location: str) -> None:
    """As from HTTP to HTTPS."""
    assert judged(302, location) == PortalFacts(NONE)


def test_network_authentication_required_is_a_portal() -> None:
    """RFC 6585 §6."""
    assert judged(511, is_hub=False) == PortalFacts(FOUND)


def test_a_page_where_the_hub_listens_is_a_portal_and_elsewhere_just_a_page() -> None:
    """On port 80 of the hub's host there may be a web site."""
    assert judged(200, body=b"<html>Welcome</html>") == PortalFacts(FOUND)
    assert judged(200, body=b"<html>Welcome</html>", is_hub=False) == PortalFacts(UNKNOWN)


@pytest.mark.parametrize("status", [400, 404, 426, 500, 503])
def test_an_error_says_nothing(status: int) -> None:
    """A server of an older version does not know the question."""
    assert judged(status) == PortalFacts(UNKNOWN)


@pytest.mark.parametrize(
    "location",
    [
        "javascript:alert(1)//x.example",
        "http://user:secret@login.example\x1b[31m/",
        "http://login.example/" + "a" * MAX_LOGIN,
        "file://login.example/etc/passwd",
        "http://löwe.example/",
    ],
)
def test_a_place_that_nobody_should_open_or_print_is_not_told(location: str) -> None:
    """That there is a portal is said all the same."""
    assert judged(302, location) == PortalFacts(FOUND)


def test_no_password_of_a_login_is_shown() -> None:
    """As little as what follows the path."""
    assert judged(302, "http://user:secret@login.example/a").login == "http://login.example/a"


def test_a_location_that_is_no_url_is_not_the_servers() -> None:
    """And it does not raise."""
    assert judged(302, "http://[::1") == PortalFacts(FOUND)
