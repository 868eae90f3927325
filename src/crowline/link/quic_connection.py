"""The QUIC library's connection, without what it does in Python for each packet.

The one file that knows more of the library than its public names: `constraints.txt` pins the version, and
`tests/link/test_quic_traps.py` holds it to what is relied on here.
"""

from __future__ import annotations

from ssl import CERT_NONE
from typing import Any, Self

from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection

from crowline.base.machine import Buffer
from crowline.link.identity import Identity
from crowline.link.quic_packets import DATAGRAM_SIZE, ID_LENGTH, MIN_FIRST_ID_LENGTH

__all__ = ["ALPN", "PSEUDO_ADDRESS", "LinkConnection", "warm_up"]

ALPN = "crowline/1"
# The connection sees one fixed address; which pair carries it is ICE's business.
PSEUDO_ADDRESS = ("192.0.2.1", 443)
# Bytes of a DATAGRAM frame around its data: type and length.
_FRAME_OVERHEAD = 3
# Bytes of a packet around its frames: a short header with at most 4 of packet number, without the id of the
# connection, and the tag.
_PACKET_OVERHEAD = 1 + 4 + 16

# Announced to the other side (RFC 9221 §3): any frame that fits into a packet.
_MAX_DATAGRAM_FRAME = 65535
# Seconds without any packet after which the connection is gone; the session pings far more often.
_IDLE_TIMEOUT = 30.0
# Bytes in flight: 170 MB/s over a round trip of 40 ms (windows are renewed when half of them is used),
# and a bound on what a fast local path lets the congestion window grow to.
_WINDOW = 16 << 20
# Bytes in flight on a path without length, what is added for each second of its least round trip, and the
# round trip that is believed before one was measured. The library keeps room for up to four times as many.
_IN_FLIGHT = 2 << 20
_MOST_RATE = 500e6
_LONGEST_RTT = 1.0
# The first round-trip estimate of a connection that is opened beside another one.
_PATIENT_RTT = 0.2
# The first round-trip estimate without a measured one (RFC 9002 §6.2.2), and the least that is believed.
_DEFAULT_RTT = 0.333
_LEAST_RTT = 0.001


def warm_up() -> None:
    """Make the TLS library build its tables now: they cost 20 ms that a first link would wait for."""
    LinkConnection.client(bytes(32), DATAGRAM_SIZE, None).connect(PSEUDO_ADDRESS, 0.0)


class LinkConnection(QuicConnection):
    """Whole batches in and out, and no packet log, for which every header would be parsed again."""

    least_rtt = _LONGEST_RTT
    """Of what was measured since the handshake; seconds."""

    @classmethod
    def client(cls, peer_fingerprint: bytes, size: int, rtt: float | None) -> Self:
        """For datagrams of at most `size` bytes, with a server whose certificate is that one.

        Where that is more than the least, the first timer is a long one: the library falls back to the least
        size when it expires, and a machine at work on bulk may answer late.
        """
        if size > DATAGRAM_SIZE:
            rtt = max(rtt or 0.0, _PATIENT_RTT)
        configuration = QuicConfiguration(
            is_client=True,
            verify_mode=CERT_NONE,
            assert_fingerprint=peer_fingerprint.hex(),
            server_name="crowline",
            **_options(size, rtt),
        )
        connection = cls(configuration=configuration)
        connection._shorten_id()
        return connection

    @classmethod
    def server(cls, first: Buffer, identity: Identity, size: int) -> Self:
        """For the client whose first datagram that is."""
        configuration = QuicConfiguration(is_client=False, **_options(size, None))
        configuration.load_cert_chain(identity.certificate, identity.private_key)
        asked = bytes(first[6 : 6 + first[5]])
        connection = cls(configuration=configuration, original_destination_connection_id=asked)
        connection._shorten_id()
        return connection

    @property
    def datagram_overhead(self) -> int:
        """Bytes of a packet around the data of one DATAGRAM frame. Acknowledgements go in other packets.

        The other side chose how long the id is that it goes by (RFC 9000 §5.1).
        """
        theirs = None if self._tls is None else self._tls.remote_initial_source_connection_id
        return _PACKET_OVERHEAD + len(theirs or b"") + _FRAME_OVERHEAD

    @property
    def largest_data(self) -> int:
        """Bytes of data in the largest DATAGRAM frame that fits into a packet and that the other side takes;
        0 where it takes none (RFC 9221 §3).
        """
        theirs = (self._remote_max_datagram_frame_size or 0) - _FRAME_OVERHEAD
        return max(0, min(self.largest_datagram - self.datagram_overhead, theirs))

    @property
    def window_left(self) -> int:
        """Bytes that congestion control lets leave now. The library sends DATAGRAM frames without asking."""
        core = self._core
        return 0 if core is None else core.congestion_window - core.bytes_in_flight

    @property
    def is_path_full(self) -> bool:
        """Whether more is in flight than the path can hold, so that it waits in queues and in memory."""
        if self._core is None:
            return False
        return self._core.bytes_in_flight > _IN_FLIGHT + _MOST_RATE * self.least_rtt

    @property
    def is_backing_off(self) -> bool:
        """Whether what was sent stays unanswered, so that each further try waits longer."""
        return self._core is not None and self._core.pto_count > 0

    @property
    def is_closed_by_peer(self) -> bool:
        """Or for a fault of its. The event of it comes some round trips later."""
        return self._close_event is not None

    @property
    def largest_datagram(self) -> int:
        """Bytes of the largest datagram that the library sends now. It ends the connection over a DATAGRAM
        frame that does not fit."""
        return 0 if self._core is None else int(self._core.active_path[5])

    @property
    def has_lost(self) -> bool:
        """Whether anything that was sent got lost."""
        return self._core is not None and self._core.loss_total > 0

    @property
    def smoothed_rtt(self) -> float | None:
        """Seconds; None until something was acknowledged."""
        return None if self._core is None else self._core.smoothed_rtt

    def receive_gro_buffer(self, buffer: bytes, segment_size: int, addr: Any, now: float) -> None:
        if self._handshake_complete and self._core is not None and segment_size > 0:
            self._core.receive_gro_buffer(buffer, segment_size, addr, now)
            self._drain_core()
            self.least_rtt = min(self.least_rtt, self._core.latest_rtt or self.least_rtt)
        else:
            super().receive_gro_buffer(buffer, segment_size, addr, now)

    def runs_to_send(self, now: float) -> list[list[bytes]]:
        """Everything that may leave now, in runs of one size, the last of each perhaps shorter."""
        if self._core is None:
            return []
        runs: list[list[bytes]] = []
        run: list[bytes] = []
        size = 0
        poll = self._core.poll_transmit
        while (transmit := poll(now)) is not None:
            datagram = transmit[0]
            length = len(datagram)
            if length == size:
                run.append(datagram)
            elif length < size:
                run.append(datagram)
                size = 0  # nothing more fits behind a shorter one
            else:
                run = [datagram]
                runs.append(run)
                size = length
        return runs

    def _shorten_id(self) -> None:
        """Go by a short id. The library makes it as long as the one that a client gives its server at first,
        which may not be short (RFC 9000 §7.2).
        """
        self.host_cid = self.host_cid[:ID_LENGTH]
        self._configuration.connection_id_length = ID_LENGTH

    def _drain_tls(self) -> None:
        # A client of this library says that it takes 1,472 bytes, whatever it was made for; the links of this
        # package take what the path carries (RFC 9000 §18.2, max_udp_payload_size).
        parameters = self._tls.remote_transport_parameters if self._tls is not None else None
        if parameters is not None:
            parameters.max_udp_payload_size = None
        super()._drain_tls()

    def _log_datagram(self, event: str, data: bytes) -> None:
        pass

    def _log_packets(self, event: str, data: bytes) -> None:
        pass


def _options(size: int, rtt: float | None) -> dict[str, Any]:
    return {
        "alpn_protocols": [ALPN],
        "connection_id_length": MIN_FIRST_ID_LENGTH,
        "idle_timeout": _IDLE_TIMEOUT,
        "max_data": _WINDOW,
        "max_stream_data": _WINDOW,
        "max_datagram_size": size,
        "max_datagram_frame_size": _MAX_DATAGRAM_FRAME,
        "probe_datagram_size": False,
        "initial_rtt": _DEFAULT_RTT if rtt is None else max(rtt, _LEAST_RTT),
    }
