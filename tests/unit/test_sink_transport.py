"""What a sink asks Redis for, against a server that answers as it is told, and in what pieces."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from sinks import transport
from sinks.entries import COMPILED, Entries, Entry, joined, no_entries
from sinks.transport import ask, ask_for_entries
from tests.resp import answer, array, bulk
from transforms import wire

ENTRIES: list[Entry] = [
    (b"%d-1000000" % number, [*wire.upsert_words(b"a.v1", b"1", b"{}", b"1", b"7"), b"end", b"1"])
    for number in range(1, 4)
]
COMMANDS = (("HMGET", "meta", "epoch"), ("XRANGE", "s", "-", "+"), ("EXISTS", "s"))
USUAL = (array([bulk(b"1")]), answer(ENTRIES), b":1\r\n")
MOVING = b">2\r\n" + bulk(b"moving") + b":1\r\n"


class Server:
    """Sends one script for each request; None: hangs up."""

    def __init__(self) -> None:
        self.scripts: list[tuple[bytes | None, ...]] = []
        self.connections = 0
        self._clients: list[redis.Redis] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def client(self) -> redis.Redis:
        port = self._listener.getsockname()[1]
        options: dict[str, Any] = {"protocol": 2, "retry": None}
        self._clients.append(redis.Redis(port=port, socket_timeout=20, **options))
        return self._clients[-1]

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # it was closed
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                with connection:
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        while received := connection.recv(65536):
            if b"SETINFO" in received:  # who the client is
                connection.sendall(b"+OK\r\n" * received.count(b"SETINFO"))
                continue
            for piece in self.scripts.pop(0):
                if piece is None:
                    return
                connection.sendall(piece)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture(params=["compiled", "python"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who reads the answers."""
    if request.param == "python":
        monkeypatch.setattr(transport, "COMPILED", None)
    elif COMPILED is None:
        pytest.skip("answers are read in Python here")
    return str(request.param)


def asked(client: redis.Redis) -> list[Any]:
    found = ask_for_entries(client, *COMMANDS, entries_at=1)
    found[1] = [(entry_id, words) for entry_id, words in joined(no_entries(), found[1])]
    return found


EXPECTED = [[b"1"], ENTRIES, 1]


@pytest.mark.parametrize(
    "cut",
    [
        lambda sent: [sent],
        lambda sent: [sent[:7], sent[7:]],
        lambda sent: [sent[at : at + 1] for at in range(len(sent))],
    ],
)
def test_answers_are_read_however_they_are_cut(server: Server, way: str, cut: Callable[[bytes], list[bytes]]) -> None:
    client = server.client()
    server.scripts += [tuple(cut(b"".join(USUAL)))] * 2
    assert [asked(client), asked(client)] == [EXPECTED] * 2
    assert server.connections == 1


def test_an_error_is_an_answer_and_the_others_are_read(server: Server, way: str) -> None:
    client = server.client()
    server.scripts += [(USUAL[0], USUAL[1], b"-NOPERM no permissions\r\n"), USUAL]
    epoch, found, refusal = ask_for_entries(client, *COMMANDS, entries_at=1)
    assert (epoch, len(found), type(refusal)) == ([b"1"], 3, redis.exceptions.NoPermissionError)
    assert asked(client) == EXPECTED
    server.scripts += [(USUAL[0], b"-WRONGTYPE no stream\r\n", USUAL[2])]
    assert str(ask_for_entries(client, *COMMANDS, entries_at=1)[1]) == "WRONGTYPE no stream"
    assert server.connections == 1


def test_a_server_that_is_loading_is_one_that_does_not_answer(server: Server, way: str) -> None:
    client = server.client()
    server.scripts += [(b"-LOADING Redis is loading\r\n" * 3,), USUAL]
    with pytest.raises(redis.exceptions.BusyLoadingError):
        ask_for_entries(client, *COMMANDS, entries_at=1)
    assert asked(client) == EXPECTED


@pytest.mark.parametrize("unusual", [b"#t\r\n", b"+OK\r\n"])
def test_what_the_compiled_reader_does_not_know_is_asked_for_again(server: Server, way: str, unusual: bytes) -> None:
    client = server.client()
    server.scripts += [(USUAL[0], USUAL[1], unusual)] * 2
    found = ask_for_entries(client, *COMMANDS, entries_at=1)
    assert found[0] == [b"1"]
    assert [list(entry) for entry in joined(no_entries(), found[1])] == [list(entry) for entry in ENTRIES]
    assert isinstance(found[1], Entries)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ((USUAL[0], USUAL[1][:50], None), redis.ConnectionError),
        ((None,), redis.ConnectionError),
        ((USUAL[0], b"HTTP/1.1 400 Bad Request\r\n\r\n"), redis.exceptions.InvalidResponse),
    ],
)
def test_after_half_an_answer_the_next_one_is_not_its_rest(
    server: Server, way: str, script: tuple[bytes | None, ...], error: type[Exception]
) -> None:
    client = server.client()
    server.scripts += [script, USUAL, (bulk(b"pong"),)]
    with pytest.raises(error):
        ask_for_entries(client, *COMMANDS, entries_at=1)
    assert asked(client) == EXPECTED
    assert ask(client, ("GET", "x")) == [b"pong"]


def test_a_push_in_between_is_no_answer(server: Server) -> None:
    client = server.client()
    if COMPILED is None:
        pytest.skip("answers are read in Python here")
    server.scripts += [(MOVING, USUAL[0], MOVING, USUAL[1], MOVING, USUAL[2], MOVING)]
    assert asked(client) == EXPECTED
