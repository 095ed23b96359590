"""Servers that speak TLS: a proxy that ends it in front of one that does not, and certificates of every kind."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

BEYOND_LOOPBACK = "0.0.0.0"
"""An address that is not the loopback's, by which Linux reaches this machine all the same."""
_SSL_REQUEST = bytes.fromhex("0000000804d2162f")
_PIECE_BYTES = 65536


class Certificates:
    """A certificate authority, its file, and what it issues."""

    def __init__(self, directory: Path) -> None:
        self._authority = trustme.CA()
        self.file = directory / "authority.pem"
        self._authority.cert_pem.write_to_path(self.file)

    def context(self, kind: str) -> ssl.SSLContext:
        """A server's side: `good`, `unknown authority`, `expired` or `wrong name`."""
        names = ["elsewhere.example"] if kind == "wrong name" else [BEYOND_LOOPBACK, "localhost"]
        end = datetime.now(UTC) - timedelta(days=1) if kind == "expired" else None
        authority = trustme.CA() if kind == "unknown authority" else self._authority
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*names, not_after=end).configure_cert(context)
        return context


@contextlib.contextmanager
def tls_in_front_of(port: int, context: ssl.SSLContext, *, postgres: bool) -> Iterator[int]:
    """A port where the server at 127.0.0.1:`port` speaks TLS; with `postgres` after a client has asked for it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, port, context, postgres), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)  # ends accept()


def _accept(listener: socket.socket, port: int, context: ssl.SSLContext, postgres: bool) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_serve, args=(client, port, context, postgres), daemon=True).start()


def _serve(client: socket.socket, port: int, context: ssl.SSLContext, postgres: bool) -> None:
    with client, contextlib.suppress(OSError):  # a client that refuses the certificate hangs up
        if postgres:
            if client.recv(len(_SSL_REQUEST), socket.MSG_WAITALL) != _SSL_REQUEST:
                return
            client.sendall(b"S")
        with (
            context.wrap_socket(client, server_side=True) as encrypted,
            socket.create_connection(("127.0.0.1", port)) as server,
        ):
            back = threading.Thread(target=_copy, args=(server, encrypted), daemon=True)
            back.start()
            _copy(encrypted, server)
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(_PIECE_BYTES):
            target.sendall(piece)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
