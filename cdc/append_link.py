"""A connection to Redis on which entries are appended in guarded transactions: commands out, answers in.

What is sent for the entries of some streams is, in this order: a look at where each stream ends; for each stream its
entries in pieces, each a transaction of the guard, XADDs, and the guard again; another look. When it is to be quiet,
Redis keeps the answers to the transactions to itself: the two looks tell what they came to.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

import redis

from cdc import append
from cdc.batch import Batch, StreamBatch
from cdc.counters import Counters
from transforms.keys import Keys
from transforms.position import LSN, Position

log = logging.getLogger(__name__)

_GUARD = re.sub(r"(?m)^ *--.*\n", "", resources.files("cdc").joinpath("append.lua").read_text())
"""Without its comments, for it is sent with every transaction."""
_STORE = resources.files("cdc").joinpath("store.lua").read_text()
WENT_BACK = "WENTBACK"
_QUIET, _NOT_QUIET = append.command(b"CLIENT", b"REPLY", b"OFF"), append.command(b"CLIENT", b"REPLY", b"ON")
_MULTI, _EXEC = append.command(b"MULTI"), append.command(b"EXEC")
_LOAD = append.command(b"SCRIPT", b"LOAD", _GUARD.encode())
"""Part of every transaction: a guard that Redis has forgotten (SCRIPT FLUSH) would let its XADDs through unguarded."""
PIECE_ENTRIES = 100
"""How many entries go into one transaction at most. Redis keeps the words of a transaction, each in memory of its own,
until its end: those of a large one fall out of the processor's caches, and a guard costs as much as ten entries."""


class Seen(NamedTuple):
    """Where a stream ends, and how many entries it has ever been given."""

    last: Position
    added: int


class Answers(NamedTuple):
    """What Redis said of the entries of some streams; in the order of the streams."""

    before: list[Seen]
    refusals: list[Exception]
    """Of single entries but those that are there already, as far as they are told."""
    after: list[Seen]


class AppendLink:
    """One connection. Methods raise what redis-py raises; after an error it is of no use any more."""

    def __init__(self, client: redis.Redis, keys: Keys, epoch: int, streams: Sequence[str], counters: Counters) -> None:
        """Connect, and have Redis show that the guard may do what it may have to do to each of the streams."""
        self._keys = keys
        self._epoch = epoch
        self._counters = counters
        self._pool = client.connection_pool
        self._sha, self._store_sha = client.script_load(_GUARD).encode(), client.script_load(_STORE).encode()
        self._connection: Any = self._pool.get_connection()
        try:
            self.may_be_quiet = self._can_be_quiet()
            """Whether Redis leaves answers out where it is told to."""
            for stream in streams:
                self._ask(self._guard(stream, b"prove"))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the connection up, with the answers that may still be on their way."""
        self._connection.disconnect()
        self._pool.release(self._connection)

    # --- out ---------------------------------------------------------------------------------------------------------

    def send(self, commands: Sequence[bytes]) -> None:
        """Send commands in one go."""
        self._counters.sent_bytes += sum(map(len, commands))
        if commands:
            self._connection.send_packed_command([b"".join(commands)], check_health=False)  # no PING among the answers

    def appending(
        self, streams: Mapping[str, StreamBatch], known: Mapping[str, Position], *, quiet: bool
    ) -> list[bytes]:
        """The commands that append entries, in each stream behind the id that is known to be in it; see `appended`."""
        if not streams:
            return []
        looks = [self._guard(stream, b"look") for stream in streams]
        commands = [*looks, *([_QUIET] if quiet else [])]
        for stream, entries in streams.items():
            behind, close = known[stream], self._guard(stream, b"close")
            for piece in _pieces(entries.items):
                commands += (_MULTI, _LOAD, self._guard(stream, b"open", str(behind).encode()))
                commands += piece
                commands += (close, _EXEC)
                behind = max(behind, append.last_id(piece))
        return [*commands, *([_NOT_QUIET] if quiet else []), *looks]

    def storing(self, before: LSN, batch: Batch, last_ids: Mapping[str, Position]) -> list[bytes]:
        """The command that stores a batch's position, notes and parked rows; see `store.lua` and `stored`.

        `before` was stored last; `last_ids`: where the streams of the batch end with it.
        """
        names = [self._keys.meta, self._keys.runs, self._keys.parked]
        names += (self._keys.stream(stream, self._epoch) for stream in last_ids)
        words = [str(before), str(batch.end), str(len(batch.notes))]
        pairs = [*((stream, str(last)) for stream, last in last_ids.items()), *batch.notes.items()]
        words += (word for pair in (*pairs, *batch.parked.items()) for word in pair)
        count = str(len(names)).encode()
        return [append.command(b"EVALSHA", self._store_sha, count, *(text.encode() for text in (*names, *words)))]

    def _guard(self, stream: str, *arguments: bytes) -> bytes:
        key, shut = self._keys.stream(stream, self._epoch), self._keys.shut(stream, self._epoch)
        return append.command(b"EVALSHA", self._sha, b"2", key.encode(), shut.encode(), *arguments)

    # --- in ----------------------------------------------------------------------------------------------------------

    def appended(self, streams: Mapping[str, StreamBatch], *, quiet: bool) -> Answers:
        """Read the answers to `appending`."""
        before = [self._look() for _ in streams]
        refusals: list[Exception] = []
        if streams and quiet:
            self._connection.read_response()  # to the command that ends the quiet
        else:
            for index, entries in enumerate(streams.values()):
                for number, piece in enumerate(_pieces(entries.items)):
                    seen, told = self._answers_to_piece(len(piece))
                    refusals += told
                    if number == 0 and seen is not None:
                        before[index] = seen  # of the very moment
        return Answers(before, refusals, [self._look() for _ in streams])

    def _answers_to_piece(self, count: int) -> tuple[Seen | None, list[Exception]]:
        """What its guard has seen, and the refusals of entries but those that are there already."""
        for _ in range(count + 4):
            self._connection.read_response()  # "queued", or why not
        _, seen, *answers = self._connection.read_response()
        errors = [one for one in (seen, *answers) if isinstance(one, Exception)]
        refusals = [one for one in errors if "equal or smaller" not in str(one)]
        return None if isinstance(seen, Exception) else _seen(seen), refusals

    def stored(self) -> None:
        """Read the answer to `storing`; one that begins with WENT_BACK says that Redis has lost something."""
        self._connection.read_response()

    def _look(self) -> Seen:
        return _seen(self._connection.read_response())

    def _ask(self, command: bytes) -> Any:
        self.send([command])
        return self._connection.read_response()

    def _can_be_quiet(self) -> bool:
        """Whether answers are left out when they are to be; a proxy may say so and send them."""
        token = secrets.token_hex(8).encode()
        ping = append.command(b"PING", token)
        try:
            self._ask(_NOT_QUIET)
        except redis.ResponseError as error:
            log.info("Redis does not let answers be left out, which costs some speed: %s", error)
            return False
        self.send([_QUIET, append.command(b"PING"), _NOT_QUIET, ping])
        answers: list[Any] = []
        while not answers or answers[-1] != token:
            try:
                answers.append(self._connection.read_response())
            except redis.ResponseError as error:
                answers.append(error)
        return answers == [b"OK", token]


def _pieces(items: list[bytes]) -> Iterator[list[bytes]]:
    """The items of a stream, as many as go into one transaction."""
    for at in range(0, len(items), PIECE_ENTRIES):
        yield items[at : at + PIECE_ENTRIES]


def _seen(answer: Any) -> Seen:
    last, added = answer
    return Seen(Position.parse(last.decode()), added)
