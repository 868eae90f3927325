"""Sockets that take datagrams in batches, as where the system has `recvmmsg`, or one a call as elsewhere."""

from __future__ import annotations

import pytest

from crowline.net import mmsg
from needs import missing


def use_batches(monkeypatch: pytest.MonkeyPatch, wanted: bool) -> None:
    """Decide which of the two the sockets of a test are, if the system has both."""
    if not wanted:
        monkeypatch.setattr(mmsg, "find", lambda: None)
    elif mmsg.find() is None:
        missing("this system has no recvmmsg")
