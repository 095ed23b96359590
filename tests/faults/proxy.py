"""A TCP proxy for one link (reader or sink, to Postgres or Redis) that fails as networks fail, when a test says so.

It runs on a thread of its own; methods act at once on the connections there are, and those named after a lasting state
(`black_hole`, `delay`, `throttle`, `cut_after`) on those to come as well, until `heal`. What a black hole holds back
arrives when it ends, as TCP sends it again when a network is mended.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from psycopg.conninfo import conninfo_to_dict, make_conninfo

_PIECE_BYTES = 1 << 16
_STEP_SECONDS = 0.05
"""At most so long a throttled piece takes."""
_CONNECT_SECONDS = 10.0
_SEEN_AGAIN_BYTES = 1 << 14
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Way(enum.Enum):
    """Which way bytes go."""

    UP = "to the server"
    DOWN = "to the client"


BOTH = (Way.UP, Way.DOWN)


@dataclass
class _Rules:
    """What happens to bytes of one way."""

    flows: asyncio.Event = field(default_factory=asyncio.Event)
    delay_seconds: float = 0.0
    bytes_per_second: float | None = None
    left: int | None = None
    """So many bytes pass yet, over all connections; then the connection that brought them ends."""
    with_reset: bool = False


@dataclass(eq=False)
class _Connection:
    """A client and the server it believes to speak to."""

    ends: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    """To the client, to the server."""
    pumps: list[asyncio.Task[None]] = field(default_factory=list)

    def end(self, *, with_reset: bool) -> None:
        for writer in self.ends:
            if with_reset and (still_open := writer.get_extra_info("socket")).fileno() >= 0:
                still_open.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()  # what is buffered is lost
        for pump in self.pumps:
            pump.cancel()


class Proxy:
    """Listens on a free port of 127.0.0.1 and passes on to `host`:`port`, until it is closed."""

    def __init__(self, host: str, port: int, watch: Callable[[bytes], bool] | None = None) -> None:
        """`watch` is shown what a client sends, before it is passed on: each piece behind the end of the one before,
        so that a word of up to 16 KiB is seen whole. True: hang up instead.

        A path as `host` is the folder of a Postgres' Unix socket.
        """
        self._there = (host, port)
        self._watch = watch
        self._rules = {way: _Rules() for way in Way}
        self._connections: set[_Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self.passed_bytes = dict.fromkeys(Way, 0)
        """So far, over all connections."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._call(self._serve)
        self.heal()

    @classmethod
    def of_dsn(cls, dsn: str) -> tuple[Self, str]:
        """In front of a Postgres; with the DSN that leads through the proxy."""
        parts = conninfo_to_dict(dsn)
        made = cls(str(parts["host"]), int(str(parts.get("port", 5432))))
        return made, make_conninfo(dsn, host="127.0.0.1", port=made.port)

    @classmethod
    def of_url(cls, url: str, watch: Callable[[bytes], bool] | None = None) -> tuple[Self, str]:
        """In front of a Redis; with the URL that leads through the proxy."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        made = cls(parts.hostname, parts.port or 6379, watch)
        there = parts.netloc.rpartition("@")[0]
        return made, parts._replace(netloc=f"{there}{'@' if there else ''}127.0.0.1:{made.port}").geturl()

    # --- faults ------------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """End every connection; what was under way is lost."""
        self._call(self._end_all, False)

    def reset(self) -> None:
        """The same with RST, as from a host that has started again."""
        self._call(self._end_all, True)

    def half_close(self, way: Way) -> None:
        """On every connection nothing more is sent this way, and the other side sees its end; the other way lives."""
        self._call(self._half_close, way)

    def black_hole(self, *ways: Way) -> None:
        """Accept connections and bytes, and pass on nothing (both ways unless said): not even that somebody hung up."""
        for way in ways or BOTH:
            self._call(self._rules[way].flows.clear)

    def delay(self, seconds: float, *ways: Way) -> None:
        """Each piece (64 KiB at most) arrives so much later, one after the other."""
        for way in ways or BOTH:
            self._rules[way].delay_seconds = seconds

    def throttle(self, bytes_per_second: float, *ways: Way) -> None:
        """So much passes on each connection."""
        for way in ways or BOTH:
            self._rules[way].bytes_per_second = bytes_per_second

    def cut_after(self, count: int, way: Way, *, with_reset: bool = False) -> None:
        """Exactly so many bytes more pass this way, over all connections; then the one that brought them is cut."""
        self._rules[way].with_reset = with_reset
        self._rules[way].left = count

    def heal(self) -> None:
        """No faults any more. What was cut stays cut."""
        for rules in self._rules.values():
            rules.delay_seconds, rules.bytes_per_second, rules.left = 0.0, None, None
            self._call(rules.flows.set)

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._connections)

    def close(self) -> None:
        """End every connection and listen no more."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # --- on the proxy's thread ---------------------------------------------------------------------------------------

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        async def run() -> None:
            function(*arguments)

        asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def _serve(self) -> None:
        self._accepting = self._loop.create_task(self._accept())

    async def _accept(self) -> None:
        self._listener.setblocking(False)
        while True:
            client, _ = await self._loop.sock_accept(self._listener)
            opening = self._loop.create_task(self._open(client))
            self._opening.add(opening)
            opening.add_done_callback(partial(self._opened, client))

    def _opened(self, client: socket.socket, opening: asyncio.Task[None]) -> None:
        self._opening.discard(opening)
        if opening.cancelled():  # perhaps before it began
            client.close()

    async def _open(self, client: socket.socket) -> None:
        host, port = self._there
        try:
            await self._rules[Way.UP].flows.wait()
            opening = asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}") if host.startswith("/") else None
            server = await asyncio.wait_for(opening or asyncio.open_connection(host, port), _CONNECT_SECONDS)
        except OSError:  # the server is down, as the client will see
            client.close()
            return
        try:
            from_client, to_client = await asyncio.open_connection(sock=client)
        except asyncio.CancelledError:
            server[1].transport.abort()
            raise
        connection = _Connection((to_client, server[1]))
        self._connections.add(connection)
        ways = ((Way.UP, from_client, server[1]), (Way.DOWN, server[0], to_client))
        connection.pumps = [self._loop.create_task(self._pump(connection, *way)) for way in ways]
        try:
            await asyncio.wait(connection.pumps)
        finally:
            connection.end(with_reset=False)
            self._connections.discard(connection)

    async def _pump(
        self, connection: _Connection, way: Way, here: asyncio.StreamReader, there: asyncio.StreamWriter
    ) -> None:
        rules = self._rules[way]
        watch = self._watch if way is Way.UP else None
        seen = b""
        try:
            while data := await here.read(_PIECE_BYTES):
                await asyncio.sleep(rules.delay_seconds)
                await rules.flows.wait()
                if watch is not None:
                    seen = seen[-_SEEN_AGAIN_BYTES:] + data
                    if await asyncio.to_thread(watch, seen):
                        connection.end(with_reset=False)
                        return
                await self._send(connection, way, data, there)
            await rules.flows.wait()
            there.write_eof()  # the other way may live
        except OSError:  # one side is gone
            connection.end(with_reset=True)

    async def _send(self, connection: _Connection, way: Way, data: bytes, there: asyncio.StreamWriter) -> None:
        rules = self._rules[way]
        while data:
            rate = rules.bytes_per_second
            piece = data[: max(1, int(rate * _STEP_SECONDS))] if rate else data
            left = rules.left
            if left is not None:
                piece = piece[:left]
                rules.left = left - len(piece)
            there.write(piece)
            await there.drain()
            self.passed_bytes[way] += len(piece)
            data = data[len(piece) :]
            if rules.left == 0:
                rules.left = None
                await self._flushed(there)
                connection.end(with_reset=rules.with_reset)
                return
            if rate:
                await asyncio.sleep(len(piece) / rate)

    @staticmethod
    async def _flushed(there: asyncio.StreamWriter) -> None:
        there.transport.set_write_buffer_limits(0)
        await there.drain()

    def _end_all(self, with_reset: bool) -> None:
        for connection in list(self._connections):
            connection.end(with_reset=with_reset)

    def _half_close(self, way: Way) -> None:
        for connection in self._connections:
            connection.pumps[BOTH.index(way)].cancel()
            with contextlib.suppress(OSError):  # it has ended just now
                connection.ends[way is Way.UP].write_eof()

    async def _close(self) -> None:
        self._accepting.cancel()
        await asyncio.wait([self._accepting])
        self._listener.close()
        connections = list(self._connections)
        opening = list(self._opening)
        for task in opening:
            task.cancel()
        self._end_all(False)
        await asyncio.gather(*opening, *(pump for each in connections for pump in each.pumps), return_exceptions=True)
        for writer in (writer for each in connections for writer in each.ends):
            with contextlib.suppress(OSError):
                await writer.wait_closed()
