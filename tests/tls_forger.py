"""A peer of a TLS link with the keys in its own hand: it sends records that no TLS library would."""

from __future__ import annotations

import ssl
import struct
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from crowline.link.tls import TlsLink
from crowline.link.tls_trust import TlsTrust
from tls_pair import CLIENT

ALERT, HANDSHAKE, APPLICATION_DATA = 21, 22, 23
KEY_UPDATE, NEW_SESSION_TICKET, CLIENT_HELLO = 24, 4, 1


def framed(data: bytes) -> bytes:
    """Session bytes as they stand in a link."""
    return len(data).to_bytes(4, "big") + data


def handshake_message(kind: int, body: bytes) -> bytes:
    """RFC 8446 §4."""
    return bytes([kind]) + len(body).to_bytes(3, "big") + body


class RawPeer:
    """OpenSSL's end of a connection to a link, without anything of ours around it."""

    def __init__(self, context: ssl.SSLContext, *, is_server: bool) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=is_server)
        self.failure = ""

    def shake_hands(self, link: TlsLink) -> None:
        """Carry the handshake until neither side has more to say; `failure` is OpenSSL's reason, if any."""
        for _ in range(5):
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                self.failure = error.reason or type(error).__name__
            link.receive(self.outgoing.read(), CLIENT, 0.0)
            self.take(link)

    def take(self, link: TlsLink) -> int:
        """What the link has to send, in bytes."""
        taken = 0
        while (transmit := link.next_transmit()) is not None:
            taken += len(transmit.data)
            self.incoming.write(transmit.data)
        return taken

    def send(self, link: TlsLink, data: bytes) -> None:
        self.tls.write(data)
        link.receive(self.outgoing.read(), CLIENT, 0.0)


class Forger(RawPeer):
    """Has the right certificate, so the handshake succeeds; afterwards it writes its records itself."""

    def __init__(self, trust: TlsTrust, folder: Path) -> None:
        self._keylog = folder / "keys"
        trust._context.keylog_filename = str(self._keylog)
        super().__init__(trust._context, is_server=not trust.is_client)
        self._label = "CLIENT_TRAFFIC_SECRET_0" if trust.is_client else "SERVER_TRAFFIC_SECRET_0"

    def shake_hands(self, link: TlsLink) -> None:
        super().shake_hands(link)
        assert self.tls.cipher()[0] == "TLS_AES_256_GCM_SHA384"
        words = (line.split() for line in self._keylog.read_text().splitlines())
        (secret,) = (bytes.fromhex(parts[2]) for parts in words if parts[0] == self._label)
        self._use(secret)

    def record(self, kind: int, content: bytes, padding: int = 0) -> bytes:
        """RFC 8446 §5.2."""
        inner = content + bytes([kind]) + bytes(padding)
        header = struct.pack("!BHH", APPLICATION_DATA, 0x0303, len(inner) + 16)
        nonce = (int.from_bytes(self._iv, "big") ^ self._count).to_bytes(12, "big")
        self._count += 1
        return header + AESGCM(self._key).encrypt(nonce, inner, header)

    def key_update(self, *, wants_answer: bool) -> bytes:
        """RFC 8446 §4.6.3; what follows is protected by the next key (§7.2)."""
        record = self.record(HANDSHAKE, handshake_message(KEY_UPDATE, bytes([wants_answer])))
        self._use(_expand(self._secret, "traffic upd", 48))
        return record

    def _use(self, secret: bytes) -> None:
        self._secret = secret
        self._key = _expand(secret, "key", 32)
        self._iv = _expand(secret, "iv", 12)
        self._count = 0


def _expand(secret: bytes, label: str, length: int) -> bytes:
    """HKDF-Expand-Label of RFC 8446 §7.1, without a context."""
    name = b"tls13 " + label.encode()
    info = struct.pack("!HB", length, len(name)) + name + b"\0"
    return HKDFExpand(SHA384(), length, info).derive(secret)
