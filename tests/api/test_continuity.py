"""Whether two sides that meet again are the two ends of one session."""

from __future__ import annotations

import pytest

from crowline.api.continuity import Continuity, Relation
from crowline.base.secrets import Secret
from crowline.rendezvous.signals import Continuation

KEY, OTHER_KEY = Secret(bytes(32)), Secret(bytes(31) + b"x")


def hear_each_other(
    one: Continuity, two: Continuity, key: Secret | None = None, other: Secret | None = None
) -> tuple[Relation, Relation]:
    """What each makes of the other's first words; both are said before either is heard."""
    words = one.words(key), two.words(other)
    return one.hear(words[1], key), two.hear(words[0], other)


def test_two_that_begin_go_on_as_one_session() -> None:
    """At each later meeting both know each other."""
    one, two = Continuity(), Continuity()
    assert hear_each_other(one, two) == (Relation.NEW, Relation.NEW)
    for _ in range(3):
        assert hear_each_other(one, two, KEY, KEY) == (Relation.SAME, Relation.SAME)


def test_another_process_is_told_apart_on_both_sides() -> None:
    """The one in the middle of a session learns that its other end is gone, the new one that it must wait."""
    one, two, again = Continuity(), Continuity(), Continuity()
    hear_each_other(one, two)
    assert hear_each_other(again, two, None, KEY) == (Relation.STALE, Relation.RESTARTED)
    anew = Continuity()
    assert hear_each_other(again, anew) == (Relation.NEW, Relation.NEW)


def test_words_that_got_lost_are_no_other_process() -> None:
    """One side heard the other's at the first meeting, and was not heard."""
    one, two = Continuity(), Continuity()
    assert one.hear(two.words(KEY), KEY) is Relation.NEW
    assert hear_each_other(one, two, KEY, KEY) == (Relation.SAME, Relation.NEW)


@pytest.mark.parametrize("other", [None, OTHER_KEY])
def test_without_the_same_key_nothing_goes_on(other: Secret | None) -> None:
    """One side took a session for begun that the other has no key of: it begins anew, and the other waits."""
    one, two = Continuity(), Continuity()
    hear_each_other(one, two)
    mine, theirs = hear_each_other(one, two, KEY, other)
    assert mine is Relation.RESTARTED
    assert theirs is (Relation.STALE if other is None else Relation.RESTARTED)


def test_two_new_processes_that_both_had_others_before_meet() -> None:
    """Neither knows anything of the sessions of those before them."""
    assert hear_each_other(Continuity(), Continuity()) == (Relation.NEW, Relation.NEW)


def test_old_words_of_somebody_else_are_not_the_peers() -> None:
    """A session's number that was never heard is another process, whatever it says that it knows."""
    one, two = Continuity(), Continuity()
    hear_each_other(one, two)
    name = one.words(KEY).key
    assert one.hear(Continuation(bytes(16), one.session, name), KEY) is Relation.RESTARTED


@pytest.mark.parametrize("words", [{"peer": bytes(16)}, {"key": bytes(16)}])
def test_who_has_a_key_does_not_wait_for_somebody_else(words: dict[str, bytes]) -> None:
    """At a code the key comes before the first words: whoever then speaks of another session is no stranger
    to wait on for, but the end of this one.
    """
    one, two = Continuity(), Continuity()
    assert one.hear(Continuation(two.session, **words), KEY) is Relation.RESTARTED
    assert one.hear(two.words(KEY), KEY) is Relation.NEW
