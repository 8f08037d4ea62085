"""The server's certificate, and what a listener may ask of TLS with it: 1.2 and newer, no renegotiation.

The contexts stay the same for as long as the server runs: a new certificate is put into them, and counts for
handshakes from then on, while connections that are open keep what they began with.
"""

from __future__ import annotations

import ssl
from collections.abc import Collection
from pathlib import Path
from typing import Final

from qiyu.errors import StartupError

ALPN_HTTP: Final = "http/1.1"
SPEAKS_HTTP: Final = frozenset({"ws", "http"})


class Certificate:
    """The files of a certificate (with those between it and the authority) and its key, and the contexts with it."""

    def __init__(self, certificate: Path, key: Path, listeners: Collection[str]) -> None:
        """Raises `StartupError` where the files are not there, or do not go together."""
        self._contexts = {name: _context(name) for name in listeners}
        self.load(certificate, key)

    def __repr__(self) -> str:
        return f"<Certificate for {', '.join(sorted(self._contexts))}>"

    def context(self, listener: str) -> ssl.SSLContext | None:
        """What `tcp`, `ws`, `rtmp` or `http` speaks TLS with; None where it does not."""
        return self._contexts.get(listener)

    def load(self, certificate: Path, key: Path) -> None:
        """Use these files from now on. Raises `StartupError`, and goes on with those before, where they are no good."""
        load(_context(""), certificate, key)
        for context in self._contexts.values():
            load(context, certificate, key)


def load(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Put a certificate into a context; raises `StartupError`, which names the file."""
    for name, path in (("tls.certificate", certificate), ("tls.key", key)):
        try:
            with path.open("rb"):
                pass
        except OSError as exc:
            raise StartupError(f"{name}: cannot read {path}: {exc.strerror or exc}") from None
    try:
        # Asked for a password, OpenSSL would wait for somebody at the terminal.
        context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, ValueError) as exc:
        reason = (getattr(exc, "reason", None) or str(exc)).replace("_", " ").lower()
        what = f"tls: {certificate} and {key} are not a certificate and its key, in PEM and with no password"
        raise StartupError(f"{what}: {reason}") from None


def _context(listener: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if listener in SPEAKS_HTTP:
        context.set_alpn_protocols([ALPN_HTTP])
    return context


def _no_password() -> bytes:
    raise ValueError("the key has a password")
