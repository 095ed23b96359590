"""What a server says before it hangs up is heard, though the client was still sending."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from cdc.redis_link import client
from transforms.address import Address
from transforms.secret import Secret

REFUSAL = b"-ERR Protocol error: invalid bulk length\r\n"
MORE_THAN_FITS_INTO_BUFFERS = b"x" * (64 << 20)


@contextmanager
def hanging_up(listener: socket.socket, last_words: bytes) -> Iterator[None]:
    """A server that takes one connection, answers its first bytes with these, and resets it."""

    def serve() -> None:
        with closing(listener.accept()[0]) as connection:
            connection.recv(1)
            connection.sendall(last_words)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@pytest.fixture(params=["tcp", "unix"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    if request.param == "tcp":
        server = socket.create_server(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{server.getsockname()[1]}"
    else:
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(tmp_path / "s"))
        server.listen()
        url = f"unix://{tmp_path / 's'}"
    with server:
        server.settimeout(10)
        yield server, url


def send(url: str) -> None:
    made = client(Address("transport", Secret(url)), connect_timeout_seconds=5, timeout_seconds=30)
    pool = made.connection_pool
    connection = pool.connection_class(**pool.connection_kwargs, redis_connect_func=without_a_handshake)
    with closing(made):
        connection.send_packed_command([MORE_THAN_FITS_INTO_BUFFERS], check_health=False)


def without_a_handshake(connection: Any) -> None:
    connection._parser.on_connect(connection)


def test_a_refusal_is_heard_though_more_was_being_sent(listener: tuple[socket.socket, str]) -> None:
    server, url = listener
    with hanging_up(server, REFUSAL), pytest.raises(redis.ResponseError, match="invalid bulk length"):
        send(url)


def test_an_answer_is_no_refusal(listener: tuple[socket.socket, str]) -> None:
    server, url = listener
    with hanging_up(server, b"+OK\r\n:1\r\n"), pytest.raises(redis.ConnectionError, match="while writing to socket"):
        send(url)
