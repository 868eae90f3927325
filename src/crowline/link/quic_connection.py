"""The QUIC library's connection, without what it does in Python for each packet.

The one file that knows more of the library than its public names: `constraints.txt` pins the version, and
`tests/link/test_quic_traps.py` holds it to what is relied on here.
"""

from __future__ import annotations

from typing import Any

from qh3.quic.connection import QuicConnection

__all__ = ["DATAGRAM_OVERHEAD", "LinkConnection"]

# Bytes of a packet around the data of one DATAGRAM frame: a short header with an 8-byte connection id and at
# most 4 of packet number, the frame's type and length, the tag, and an acknowledgement beside it.
DATAGRAM_OVERHEAD = 40


class LinkConnection(QuicConnection):
    """Whole batches in and out, and no packet log, for which every header would be parsed again."""

    @property
    def takes_datagrams(self) -> bool:
        """Whether the other side said that it takes DATAGRAM frames (RFC 9221 §3)."""
        return bool(self._remote_max_datagram_frame_size)

    @property
    def window_left(self) -> int:
        """Bytes that congestion control lets leave now. The library sends DATAGRAM frames without asking."""
        core = self._core
        return 0 if core is None else core.congestion_window - core.bytes_in_flight

    @property
    def is_backing_off(self) -> bool:
        """Whether what was sent stays unanswered, so that each further try waits longer."""
        return self._core is not None and self._core.pto_count > 0

    def receive_gro_buffer(self, buffer: bytes, segment_size: int, addr: Any, now: float) -> None:
        if self._handshake_complete and self._core is not None and segment_size > 0:
            self._core.receive_gro_buffer(buffer, segment_size, addr, now)
            self._drain_core()
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
