from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest

from certificates import OPENSSL, make_certificate, needs_openssl, trusting
from qiyu.drivers.tls import Certificate
from qiyu.errors import StartupError

pytestmark = needs_openssl


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str = "localhost") -> ssl.SSLObject:
    """Both sides of a handshake; the client's, once it is done."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(to_client, to_server, server_hostname=name)
    two = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(5):
        done = 0
        for side in (one, two):
            try:
                side.do_handshake()
                done += 1
            except ssl.SSLWantReadError:
                pass
        if done == 2:
            return one
    raise AssertionError("no handshake")


def test_only_the_listeners_that_are_named_have_a_context(tmp_path: Path) -> None:
    certificate = Certificate(*make_certificate(tmp_path), ["ws", "tcp"])
    assert certificate.context("http") is None
    assert certificate.context("rtmp") is None
    assert certificate.context("ws") is not certificate.context("tcp")


@pytest.mark.parametrize(("listener", "agreed"), [("ws", "http/1.1"), ("http", "http/1.1"), ("tcp", None)])
def test_http_is_agreed_to_where_it_is_spoken(tmp_path: Path, listener: str, agreed: str | None) -> None:
    files = make_certificate(tmp_path)
    context = Certificate(*files, [listener]).context(listener)
    assert context is not None
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    client = trusting(files[0])
    client.set_alpn_protocols(["h2", "http/1.1"])
    assert shake_hands(context, client).selected_alpn_protocol() == agreed


def test_a_new_certificate_counts_for_the_next_handshake(tmp_path: Path) -> None:
    old, new = make_certificate(tmp_path, "old"), make_certificate(tmp_path, "new")
    certificate = Certificate(*old, ["tcp"])
    context = certificate.context("tcp")
    assert context is not None
    shake_hands(context, trusting(old[0]))
    certificate.load(*new)
    assert certificate.context("tcp") is context
    shake_hands(context, trusting(new[0]))
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(context, trusting(old[0]))


def test_files_that_are_no_good_change_nothing(tmp_path: Path) -> None:
    old, other = make_certificate(tmp_path, "old"), make_certificate(tmp_path, "other")
    locked = tmp_path / "locked.key"
    command = [str(OPENSSL), "ec", "-aes128", "-passout", "pass:hunter22", "-in", str(old[1]), "-out", str(locked)]
    subprocess.run(command, check=True, capture_output=True)
    text = tmp_path / "text"
    text.write_text("no certificate")
    certificate = Certificate(*old, ["tcp"])
    context = certificate.context("tcp")
    assert context is not None
    for files, said in (
        ((tmp_path / "none.pem", old[1]), "tls.certificate: cannot read"),
        ((old[0], tmp_path / "none.key"), "tls.key: cannot read"),
        ((tmp_path, old[1]), "tls.certificate: cannot read"),
        ((old[0], other[1]), "are not a certificate and its key"),
        ((text, old[1]), "are not a certificate and its key"),
        ((old[0], text), "are not a certificate and its key"),
        ((old[0], locked), "the key has a password"),
    ):
        with pytest.raises(StartupError, match=said):
            certificate.load(*files)
        with pytest.raises(StartupError, match=said):
            Certificate(*files, [])
    shake_hands(context, trusting(old[0]))
