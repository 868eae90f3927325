"""The links of one meeting on pairs of ICE: QUIC on those over UDP, TLS on those over TCP, as one table."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Collection
from typing import Protocol, TypeAlias

from crowline.api.links import LinkSecrets, LinkTable
from crowline.api.pair_link import PairLink
from crowline.api.tls_links import TlsLinkTable, TlsPairLink
from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem
from crowline.base.machine import Buffer, Transmit
from crowline.base.transport import Transport
from crowline.ice.candidate import CandidateType
from crowline.ice.pair import ValidPair
from crowline.link.choice import category_of
from crowline.link.identity import Identity
from crowline.link.plan import LINGER
from crowline.link.quic_packets import MAX_DATAGRAM_SIZE
from crowline.link.tls_trust import TlsTrust, UnusableCertificate
from crowline.net import own_certificate
from crowline.net.payload_limit import largest_payload
from crowline.net.tcp_framed import FramedStream
from crowline.rendezvous.signals import Description

Link: TypeAlias = PairLink | TlsPairLink

# Of ChannelData.
_CHANNEL_HEADER = 4

# Stream bytes by which a link over TCP is known as one that bulk goes by, now and then.
_BULK = 4 << 20


class Pairs(Protocol):
    """Where the pairs come from: a traversal."""

    @property
    def controlling(self) -> bool: ...

    def valid_pairs(self) -> list[ValidPair]: ...

    def use(self, pair: ValidPair) -> None: ...

    def release(self, pair: ValidPair) -> None: ...

    def hand_over(self, pair: ValidPair) -> None:
        """The connection of `pair` is a link's from now on."""

    def nominate(self, pair: ValidPair) -> None:
        """Have both sides agree on `pair`, where this side has the say."""

    def send(self, transmit: Transmit) -> None: ...

    def stream(self, pair: ValidPair) -> FramedStream | None: ...


class PairLinks:
    """`client` is the session role that plays the TLS client in both kinds. Without `trust` there are no TLS
    links. `is_ailing` says of a link's number whether it carries nothing, `carried` how many stream bytes it
    has carried in both directions. `on_drained`: let the session send, and `flush`.
    """

    def __init__(
        self,
        *,
        client: bool,
        secrets: LinkSecrets,
        trust: TlsTrust | None,
        entropy: Callable[[int], bytes],
        pairs: Pairs,
        is_ailing: Callable[[int], bool],
        carried: Callable[[int], int],
        on_up: Callable[[Link], None],
        on_data: Callable[[int, Buffer], None],
        on_datagram: Callable[[int, Buffer], None],
        on_down: Callable[[int, str], None],
        on_drained: Callable[[], None],
    ) -> None:
        self.peer_fingerprint = secrets.peer_fingerprint
        self._client = client
        self._pairs = pairs
        self._carried = carried
        # No pair over TCP worked when one was wished for.
        self._wishes_for_stream = False
        self._on_down = on_down
        numbers = itertools.count(1)
        self._quic = LinkTable(
            client=client,
            secrets=secrets,
            entropy=entropy,
            numbers=numbers,
            send=pairs.send,
            valid_pairs=lambda: [pair for pair in pairs.valid_pairs() if not pair.transport.is_stream],
            on_open=pairs.use,
            is_ailing=is_ailing,
            largest=_largest_datagram,
            on_up=on_up,
            on_data=lambda link, data: on_data(link.number, data),
            on_datagram=lambda link, data: on_datagram(link.number, data),
            on_down=self._quic_down,
        )
        self._tls: TlsLinkTable | None = None
        if trust is not None:
            self._tls = TlsLinkTable(
                trust=trust,
                client_key=secrets.client_key,
                entropy=entropy,
                numbers=numbers,
                on_up=on_up,
                on_data=lambda link, data: on_data(link.number, data),
                on_down=self._tls_down,
                on_drained=on_drained,
            )
        # TLS links that a QUIC link has taken over from, until they end.
        self._lingering: dict[TlsPairLink, asyncio.TimerHandle] = {}

    def pair_valid(self, pair: ValidPair) -> None:
        """Open a link where there is a reason for one; a TCP pair waits for its nomination."""
        if not pair.transport.is_stream:
            self._quic.pair_valid(pair)
        elif self._wishes_for_stream:
            self.wish_for_stream()

    def pair_nominated(self, pair: ValidPair) -> None:
        """Both sides agree on the pair: a TCP connection becomes a link."""
        if self._tls is None or not pair.transport.is_stream:
            return
        if (stream := self._pairs.stream(pair)) is None:
            return
        try:
            self._tls.nominate(pair, stream, is_controlling=self._pairs.controlling)
        except (LocalProblem, UnusableCertificate):
            stream.drop("no TLS link can be built on it")
        if stream.is_nominated:
            self._pairs.hand_over(pair)

    def wish_for_stream(self) -> None:
        """A link over TCP is wished for beside the one in use: make one of a pair, if that is up to us."""
        if self._tls is None or not self._pairs.controlling:
            return
        if any(link.category == "direct" for link in self._tls.links()):
            return
        for pair in self._pairs.valid_pairs():
            if pair.transport.is_stream and category_of(pair) == "direct" and not pair.handed_over:
                self._wishes_for_stream = False
                self._pairs.nominate(pair)
                return
        self._wishes_for_stream = True

    def pair_reclassified(self, pair: ValidPair, rerank: Callable[[int, int, int, float], None]) -> None:
        """`pair` is of another kind than was thought, and so is a link on it: as `Session.rerank`."""
        if not pair.transport.is_stream:
            self._quic.pair_reclassified(pair, rerank)

    def pair_lost(self, pair: ValidPair, reason: str) -> None:
        """The agent gave the pair up. A TLS link does without it: it proves itself."""
        if not pair.transport.is_stream:
            self._quic.pair_lost(pair.key, reason)

    def packet(self, data: memoryview, segment_size: int, source: Address, local: Address) -> None:
        """A run of datagrams that are not STUN."""
        self._quic.packet(data, segment_size, source, local)

    def hosts_lost(self, hosts: Collection[str], reason: str) -> None:
        """Local addresses are gone: TLS links from there are over, which no packet will say."""
        for link in self._tls.links() if self._tls is not None else ():
            if link.key[0].host in hosts:
                link.stream.drop(reason)

    def fade(self, end: Address) -> list[int]:
        """What begins or ends there will not last: open others beside those links. Their numbers."""
        return self._quic.fade(end)

    def is_fading(self, pair: ValidPair) -> bool:
        """Whether a link on it is to be left for any other of its rank."""
        return self._quic.is_fading(pair)

    def network_changed(self) -> None:
        """Of either side."""
        self._quic.network_changed()

    def chosen(self, link: Link | None) -> None:
        """The streams flow by this link; None: by the server, or not at all.

        TLS links of lesser pairs go after a while, but not what bulk goes by, here or there. One of a better
        pair stays, though it was measured to be longer: as soon as it had gone, the pair would be dialled and
        nominated again.
        """
        self._quic.chosen(link.number if link is not None else None)
        for timer in self._lingering.values():
            timer.cancel()
        self._lingering.clear()
        if self._tls is None or not self._client or link is None or link.category != "direct":
            return
        for other in self._tls.links():
            is_lesser = other.category == "direct" and other.pair.priority < link.pair.priority
            if other is not link and other.is_up and is_lesser:
                self._linger(other)

    def flush(self) -> None:
        """Send and hand on what the last calls made."""
        self._quic.flush()
        if self._tls is not None:
            self._tls.flush()

    def close(self) -> None:
        for timer in self._lingering.values():
            timer.cancel()
        self._quic.close()
        if self._tls is not None:
            self._tls.close()

    def _linger(self, link: TlsPairLink) -> None:
        loop, carried = asyncio.get_running_loop(), self._carried(link.number)
        self._lingering[link] = loop.call_later(LINGER, self._let_go, link, carried)

    def _let_go(self, link: TlsPairLink, carried: int) -> None:
        if self._carried(link.number) >= min(carried + 1, _BULK):
            self._linger(link)
        elif self._tls is not None:
            self._tls.end(link, "a better path took over")

    def _quic_down(self, link: PairLink, reason: str) -> None:
        if not self._quic.uses(link.pair):
            self._pairs.release(link.pair)
        self._on_down(link.number, reason)

    def _tls_down(self, link: TlsPairLink, reason: str) -> None:
        if (timer := self._lingering.pop(link, None)) is not None:
            timer.cancel()
        self._on_down(link.number, reason)


def trust_in(description: Description, identity: Identity, *, is_client: bool) -> TlsTrust | None:
    """What TLS links with whoever described itself so need; None where there can be none."""
    try:
        return TlsTrust(
            is_client=is_client,
            identity=identity,
            certificate=description.certificate,
            fingerprint=bytes.fromhex(description.fingerprint),
            load=own_certificate.load,
        )
    except UnusableCertificate:
        return None


def _largest_datagram(pair: ValidPair) -> int:
    """Bytes of QUIC in one packet; a relay of ours takes some of them (RFC 8656 §12.4)."""
    header = _CHANNEL_HEADER if pair.local.type is CandidateType.RELAYED else 0
    return min(largest_payload(pair.base, pair.remote.address) - header, MAX_DATAGRAM_SIZE)


def transport_of(link: Link, of_base: Callable[[Address], Transport]) -> Transport:
    """How the packets of a link leave this machine; `of_base` knows it of those over UDP."""
    return Transport.TCP if isinstance(link, TlsPairLink) else of_base(link.pair.base)
