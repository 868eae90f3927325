"""Gives OpenSSL the certificate and key of an identity, which it takes from files only."""

from __future__ import annotations

import secrets
import ssl
from pathlib import Path
from tempfile import TemporaryDirectory

from crowline.base.errors import LocalProblem
from crowline.link.identity import Identity


def load(context: ssl.SSLContext, identity: Identity) -> None:
    """Make `identity` what `context` shows. Blocks for about 2 ms; raises `LocalProblem`.

    The file is gone at once and its key encrypted, so that one that a crash leaves behind says nothing.
    """
    password = secrets.token_hex(32).encode()
    try:
        with TemporaryDirectory(prefix="crowline-") as folder:
            chain = Path(folder) / "own.pem"
            chain.write_bytes(identity.certificate + identity.encrypted_key(password))
            context.load_cert_chain(chain, password=password)
    except OSError as error:
        raise LocalProblem(f"A temporary file cannot be used: {error}.") from error
