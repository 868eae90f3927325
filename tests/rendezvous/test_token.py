"""Tokens that two people hand each other: what is in one, and what two of them agree on."""

from __future__ import annotations

import base64
import hashlib
import os
from dataclasses import replace

import pytest

from crowline.base.errors import UsageError, WrongCode
from crowline.rendezvous.keys import derive
from crowline.rendezvous.role import Role
from crowline.rendezvous.signals import Bye, CandidateSignal, Description
from crowline.rendezvous.token import MAX_CANDIDATES, PREFIX, BadToken, Token
from crowline.rendezvous.token_meeting import TokenMeeting
from crowline.rendezvous.words import spell

DESCRIPTION = Description("abcd", "x" * 24, "5a" * 32)


def candidate(host: str, port: int = 4000, priority: int = 1000, kind: str = "host") -> CandidateSignal:
    return CandidateSignal("f", 1, "udp", priority, host, port, kind)  # type: ignore[arg-type]


def written(role: Role = Role.HOST, answers: str = "", *hosts: str) -> tuple[TokenMeeting, Token]:
    """A meeting that has written its token."""
    meeting = TokenMeeting(role, os.urandom)
    if answers:
        meeting.read(answers)
    meeting.signal(DESCRIPTION)
    for host in hosts or ("192.0.2.7", "2001:db8::7"):
        meeting.signal(candidate(host))
    return meeting, meeting.write()


def sealed(body: bytes) -> str:
    """The text of a token with that body and a checksum that fits."""
    data = body + hashlib.sha256(body).digest()[:4]
    return PREFIX + base64.urlsafe_b64encode(data).decode().rstrip("=")


def test_a_token_is_read_as_it_was_written() -> None:
    """Both families, every kind of candidate, the key and the credentials."""
    _, token = written()
    assert Token.parse(str(token)) == replace(
        token,
        candidates=tuple(
            replace_foundation(each, str(number + 1)) for number, each in enumerate(token.candidates)
        ),
    )
    assert len(str(token)) < 300


def replace_foundation(signal: CandidateSignal, foundation: str) -> CandidateSignal:
    import msgspec

    return msgspec.structs.replace(signal, foundation=foundation)


def test_a_token_survives_a_chat_that_breaks_its_lines() -> None:
    """With line breaks in the middle, quotes and words around it."""
    _, token = written()
    text = str(token)
    assert Token.parse(f'here: "{text[:50]}\n   {text[50:120]}\r\n{text[120:]}" !').key == token.key
    assert Token.parse(f"here is {text[:50]}\n{text[50:]}\nThanks, Ana").key == token.key
    assert Token.parse(f"crowline receive --no-server {text} and wait").key == token.key


@pytest.mark.parametrize("text", ["", "7-maple-orbit-candle", PREFIX, PREFIX + "A", PREFIX + "AAAA" * 40])
def test_what_is_no_token_is_said_to_be_none(text: str) -> None:
    """With the hint to copy it again, and the exit code of a wrong code."""
    with pytest.raises(BadToken) as caught:
        Token.parse(text)
    assert caught.value.exit_code == 4 and caught.value.hint


def test_one_wrong_letter_is_noticed() -> None:
    """Wherever it is."""
    _, token = written()
    text = str(token)
    for place in range(len(PREFIX), len(text)):
        wrong = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
        with pytest.raises(BadToken):
            Token.parse(wrong)


def test_a_token_of_a_newer_version_says_so() -> None:
    """The person is told to update, not to copy it again."""
    _, token = written()
    with pytest.raises(BadToken, match="another version"):
        Token.parse(sealed(b"\x02" + token.body[1:]))


def test_every_cut_and_every_length_is_refused() -> None:
    """A checksum is no proof of sense: whoever writes tokens by hand gets no exception of another kind."""
    _, token = written()
    body = token.body
    for size in range(1, len(body)):
        with pytest.raises(BadToken):
            Token.parse(sealed(body[:size]))
    with pytest.raises(BadToken):
        Token.parse(sealed(body + b"\0"))
    for place in range(2, len(body)):
        for value in (0x00, 0x7F, 0xFF):
            try:
                Token.parse(sealed(body[:place] + bytes([value]) + body[place + 1 :]))
            except BadToken:
                continue


def test_both_sides_agree_on_one_key_and_the_same_words() -> None:
    """And each has heard what the other would have signalled, restarts excepted."""
    host, first = written()
    join, second = written(Role.JOIN, str(first), "198.51.100.7")
    host.read(str(second))
    assert host.key is not None and join.key is not None
    assert host.key.reveal() == join.key.reveal()
    assert host.words == join.words and len(host.words) == 4
    [description, *candidates] = host.heard()
    assert isinstance(description, Description) and not description.restarts and description.regains
    assert (description.ufrag, description.pwd, description.fingerprint) == ("abcd", "x" * 24, "5a" * 32)
    assert [each.host for each in candidates if isinstance(each, CandidateSignal)] == ["198.51.100.7"]


def test_whoever_sits_between_makes_other_words() -> None:
    """A token that somebody put in the place of the right one cannot give both sides the same key."""
    host, first = written()
    _, forged = written()
    victim, answer = written(Role.JOIN, str(forged))
    with pytest.raises(WrongCode, match="answers another"):
        host.read(str(answer))
    attacker, second = written(Role.JOIN, str(first))
    host.read(str(second))
    assert host.words == attacker.words != victim.words


def test_words_cannot_be_tried_in_great_numbers() -> None:
    """Whoever sits between may search for a token that gives the same words: memory and time for each try."""
    host, first = written()
    join, answer = written(Role.JOIN, str(first))
    host.read(str(answer))
    assert host.key is not None
    secret = derive(host.key, "verifier").reveal()
    slow = hashlib.scrypt(secret, salt=b"crowline/1 token words", n=2**14, r=8, p=1, dklen=6)
    assert host.words == join.words == spell(slow, 4)


def test_an_answer_to_an_older_token_is_refused() -> None:
    """As when the first command was run again in the meantime."""
    _, old = written()
    host, _ = written()
    _, answer = written(Role.JOIN, str(old))
    with pytest.raises(WrongCode, match="answers another"):
        host.read(str(answer))


def test_the_own_token_is_recognised() -> None:
    """A person who pastes what is on the own screen is told so; so are two senders."""
    host, token = written()
    with pytest.raises(WrongCode, match="your own"):
        host.read(str(token))
    other, _ = written()
    with pytest.raises(WrongCode, match="another sender"):
        other.read(str(token))


def test_a_public_key_that_nobody_can_have_is_refused() -> None:
    """The point zero would make the key known to everybody."""
    host, first = written()
    _, answer = written(Role.JOIN, str(first))
    with pytest.raises(BadToken):
        host.read(str(replace(answer, key=bytes(32))))
    host.read(str(answer))
    assert host.key is not None
    with pytest.raises(BadToken):
        TokenMeeting(Role.JOIN, os.urandom).read(str(replace(first, key=bytes(32))))


@pytest.mark.parametrize("names", [("abc", "x" * 24), ("abcd", "x" * 21), ("", ""), ("abcd", "x" * 65)])
def test_credentials_that_no_check_can_have_are_refused(names: tuple[str, str]) -> None:
    """At once: nothing would ever come of them (RFC 8839 §5.4)."""
    _, token = written()
    with pytest.raises(BadToken):
        Token.parse(str(replace(token, ufrag=names[0], pwd=names[1])))


def test_names_tcp_and_what_comes_too_late_are_left_out() -> None:
    """And of many candidates the best are told."""
    meeting = TokenMeeting(Role.HOST, os.urandom)
    with pytest.raises(UsageError):
        meeting.write()
    meeting.signal(DESCRIPTION)
    meeting.signal(candidate("a.local"))
    meeting.signal(CandidateSignal("f", 1, "tcp", 5, "192.0.2.9", 4000, "host", tcp_type="passive"))
    meeting.signal(Bye())
    for number in range(MAX_CANDIDATES + 4):
        meeting.signal(candidate("192.0.2.7", 4000 + number, priority=number + 1))
    token = meeting.write()
    meeting.signal(candidate("192.0.2.8"))
    assert len(token.candidates) == MAX_CANDIDATES and meeting.write() is token
    assert {each.port for each in token.candidates} == set(range(4004, 4004 + MAX_CANDIDATES))


def test_the_largest_token_is_read_again() -> None:
    """Sixteen IPv6 candidates: what is looked at of a pasted text holds it."""
    _, token = written(Role.HOST, "", *(f"2001:db8::{number:x}" for number in range(1, 17)))
    assert len(Token.parse(str(token)).candidates) == 16
