"""The proxy does to a link what its methods say, and nothing else."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.faults.proxy import Proxy, Way

SHORT_SECONDS = 0.2
LONG_SECONDS = 20.0


class Echo:
    """A server that sends back what it is sent, and notes how each connection ended."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.received = bytearray()
        self.ends: list[str] = []
        self.ended = threading.Condition()
        threading.Thread(target=self._accept, daemon=True).start()

    def wait_for_ends(self, count: int) -> list[str]:
        with self.ended:
            assert self.ended.wait_for(lambda: len(self.ends) >= count, LONG_SECONDS), self.ends
        return self.ends

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        end = "end"
        with client:
            try:
                while data := client.recv(1 << 16):
                    self.received += data
                    client.sendall(data)
                if b"wait" in self.received:
                    client.sendall(b"goodbye")
            except OSError:
                end = "reset"
        with self.ended:
            self.ends.append(end)
            self.ended.notify_all()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def link(echo: Echo) -> Iterator[Proxy]:
    with Proxy("127.0.0.1", echo.port) as proxy:
        yield proxy


@pytest.fixture
def client(link: Proxy) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", link.port), LONG_SECONDS) as connected:
        assert say(connected, b"hello") == b"hello"
        yield connected


def say(client: socket.socket, words: bytes) -> bytes:
    client.sendall(words)
    return hear(client, len(words))


def hear(client: socket.socket, count: int) -> bytes:
    heard = b""
    while len(heard) < count and (data := client.recv(count - len(heard))):
        heard += data
    return heard


def silent(client: socket.socket) -> bool:
    client.settimeout(SHORT_SECONDS)
    try:
        return not client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(LONG_SECONDS)


def test_bytes_pass_unchanged_however_many(client: socket.socket, link: Proxy) -> None:
    words = bytes(range(256)) * 20_000
    writer = threading.Thread(target=client.sendall, args=(words,))
    writer.start()
    assert hear(client, len(words)) == words
    writer.join()
    assert link.passed_bytes == {way: len(words) + 5 for way in Way}


def test_an_end_is_passed_on_and_the_other_way_lives(client: socket.socket, echo: Echo) -> None:
    assert say(client, b"wait") == b"wait"
    client.shutdown(socket.SHUT_WR)
    assert hear(client, 7) == b"goodbye"
    assert echo.wait_for_ends(1) == ["end"]


def test_cut_ends_both_sides_and_new_connections_pass(client: socket.socket, link: Proxy, echo: Echo) -> None:
    link.cut()
    assert client.recv(1) == b""
    assert echo.wait_for_ends(1) == ["end"]
    with socket.create_connection(("127.0.0.1", link.port), LONG_SECONDS) as other:
        assert say(other, b"again") == b"again"


def test_reset_is_a_reset_on_both_sides(client: socket.socket, link: Proxy, echo: Echo) -> None:
    link.reset()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert echo.wait_for_ends(1) == ["reset"]


def test_a_black_hole_holds_all_back_until_it_ends(client: socket.socket, link: Proxy, echo: Echo) -> None:
    link.black_hole()
    client.sendall(b"lost?")
    with socket.create_connection(("127.0.0.1", link.port), LONG_SECONDS) as other:  # is accepted
        other.sendall(b"me too")
        assert silent(client)
        assert silent(other)
        assert bytes(echo.received) == b"hello"
        link.heal()
        assert hear(client, 5) == b"lost?"
        assert hear(other, 6) == b"me too"


def test_a_black_hole_of_one_way_lets_the_other_pass(client: socket.socket, link: Proxy, echo: Echo) -> None:
    link.black_hole(Way.DOWN)
    client.sendall(b"heard")
    assert silent(client)
    assert bytes(echo.received) == b"helloheard"


def test_nobody_hears_in_a_black_hole_that_the_other_hung_up(client: socket.socket, link: Proxy, echo: Echo) -> None:
    link.black_hole()
    client.shutdown(socket.SHUT_WR)
    assert silent(client)
    assert echo.ends == []
    link.cut()  # which ends what hangs there
    assert echo.wait_for_ends(1) == ["end"]


def test_delay_is_paid_on_each_way(client: socket.socket, link: Proxy) -> None:
    link.delay(0.1)
    began = time.monotonic()
    assert say(client, b"slow") == b"slow"
    assert time.monotonic() - began >= 0.2
    link.heal()
    assert say(client, b"fast") == b"fast"


def test_throttle_bounds_the_rate(client: socket.socket, link: Proxy) -> None:
    link.throttle(10_000, Way.DOWN)
    began = time.monotonic()
    assert say(client, b"x" * 5_000) == b"x" * 5_000
    assert time.monotonic() - began >= 0.4  # the first piece comes at once


def test_half_close_ends_one_way(client: socket.socket, link: Proxy, echo: Echo) -> None:
    assert say(client, b"wait") == b"wait"
    link.half_close(Way.UP)
    assert hear(client, 7) == b"goodbye"
    assert echo.wait_for_ends(1) == ["end"]


def test_half_close_of_the_answers_ends_them_alone(client: socket.socket, link: Proxy, echo: Echo) -> None:
    link.half_close(Way.DOWN)
    assert client.recv(1) == b""
    client.sendall(b"more")
    client.shutdown(socket.SHUT_WR)
    echo.wait_for_ends(1)
    assert bytes(echo.received) == b"hellomore"


@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize("count", [1, 1000, 100_000])
def test_exactly_so_many_bytes_pass_before_the_cut(
    client: socket.socket, link: Proxy, echo: Echo, way: Way, count: int
) -> None:
    link.cut_after(count, way)
    with contextlib.suppress(OSError):
        client.sendall(b"x" * (count + 1000))
    heard = b""
    with contextlib.suppress(OSError):
        while data := client.recv(1 << 16):
            heard += data
    echo.wait_for_ends(1)
    if way is Way.UP:
        assert len(echo.received) == 5 + count
    else:
        assert len(heard) == count


def test_a_server_that_is_down_hangs_up(link: Proxy, echo: Echo) -> None:
    echo.close()
    with socket.create_connection(("127.0.0.1", link.port), LONG_SECONDS) as client:
        assert client.recv(1) == b""
    echo.listener = socket.create_server(("127.0.0.1", 0))  # for the fixture to close
