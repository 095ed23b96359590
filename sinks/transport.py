"""Redis as a sink uses it: connecting, and redis-py's exceptions turned into ours."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import redis

from sinks.entries import COMPILED, Entries
from sinks.errors import (
    KeyForeign,
    SinkError,
    TransportFull,
    TransportNotTrusted,
    TransportRefused,
    TransportUnreachable,
)
from sinks.redis_link import client
from transforms.address import Address, is_untrusted, redis_refusal, tls_mismatch

TIMEOUT_SECONDS = 4.0
"""For connecting and for a reply: a worker that is told to end must not wait longer."""
RECEIVE_BYTES = 64 * 1024
_TRANSIENT = (
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "TRYAGAIN",
    "CLUSTERDOWN",
    "BUSY",
    "MISCONF",
    "NOREPLICAS",
    "UNBLOCKED",
)
_REFUSED_FOR_NOW = (
    redis.exceptions.ReadOnlyError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.MasterDownError,
    redis.exceptions.TryAgainError,
)
"""Of these redis-py takes the code off the text."""
_OWN_KEY = ("set", "xadd")
"""Commands that write: a sink's user may run them on one key each."""


def connect(address: Address) -> redis.Redis:
    """A client for the transport; it connects when it is first used. Raises what `redis_link.client` raises."""
    return client(address, connect_timeout_seconds=TIMEOUT_SECONDS, timeout_seconds=TIMEOUT_SECONDS)


def ask(client: redis.Redis, *commands: Sequence[str | int]) -> list[Any]:
    """Send commands in one go and return what Redis answers to each, an error too, as it arrives.

    A pipeline of redis-py does so in twice the time, a quarter of all that a sink does for a batch of a few rows.
    Raises what redis-py raises of a connection.
    """
    with _connected(client) as connection:
        connection.send_packed_command(connection.pack_commands(commands))
        return [_answer(connection) for _ in commands]


def ask_for_entries(client: redis.Redis, *commands: Sequence[str | int], entries_at: int) -> list[Any]:
    """`ask`, where the answer at `entries_at` is that of XRANGE: Entries, or an error."""
    with _connected(client) as connection:
        # what has arrived unasked may be half of a push, which redis-py is to read on
        is_clean = COMPILED is not None and not connection.can_read(timeout=0)
        packed = connection.pack_commands(commands)
        connection.send_packed_command(packed)
        if is_clean:
            replies = COMPILED.Replies(COMPILED.Entries, len(commands), entries_at)
            if (answers := _compiled_answers(connection, replies)) is not None:
                return answers
            connection.disconnect()  # more may be on its way
            connection.send_packed_command(packed)
        answers = [_answer(connection) for _ in commands]
    if isinstance(found := answers[entries_at], list):
        answers[entries_at] = Entries(found)
    return answers


def _compiled_answers(connection: Any, replies: Any) -> list[Any] | None:
    """None: one of them is not a usual one, and redis-py is to read them."""
    is_whole = False
    while not is_whole:
        try:
            data = connection._sock.recv(RECEIVE_BYTES)  # redis-py hands out no bytes
        except TimeoutError:
            raise redis.TimeoutError("Timeout reading from socket") from None
        if not data:
            raise redis.ConnectionError("Connection closed by server.")
        try:
            is_whole = replies.feed(data)
        except ValueError as error:
            raise redis.exceptions.InvalidResponse(str(error)) from None
    answers: list[Any] | None = replies.answers(connection._parser.parse_error)
    for answer in answers or ():
        if isinstance(answer, redis.ConnectionError):  # as redis-py takes it: to be tried again, or not let in
            raise answer
    return answers


@contextlib.contextmanager
def _connected(client: redis.Redis) -> Iterator[Any]:
    """A connection to ask on."""
    pool: Any = client.connection_pool
    connection = pool.get_connection()
    try:
        yield connection
    except BaseException:  # answers may still be on their way
        connection.disconnect()
        raise
    finally:
        pool.release(connection)


def _answer(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.ResponseError as refusal:
        return refusal


def fields(answer: Any) -> Mapping[bytes, Any]:
    """An answer that is a map, which an older protocol sends as a list."""
    return dict(zip(answer[::2], answer[1::2], strict=True)) if isinstance(answer, list) else answer


@contextlib.contextmanager
def translated_errors(key: str) -> Iterator[None]:
    """Turn redis-py's exceptions into ours. `key`: what is read or written meanwhile."""
    try:
        yield
    except redis.AuthenticationError as error:
        raise TransportRefused(f"Redis refuses: {redis_refusal(str(error))}") from error
    except redis.exceptions.InvalidResponse as error:  # whose text is what the server sent
        raise TransportUnreachable("what answers at transport.url is not Redis") from error
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        if (mismatch := tls_mismatch(str(error))) is not None:
            raise TransportNotTrusted(mismatch[0], remedy=mismatch[1]) from error
        if is_untrusted(str(error)):
            raise TransportNotTrusted(f"Redis' TLS cannot be trusted: {error}") from error
        raise TransportUnreachable(f"Redis does not answer: {error}") from error
    except redis.ResponseError as error:
        raise _refusal(error, key) from error


def _refusal(error: redis.ResponseError, key: str) -> SinkError:
    text = re.sub(r"^Command # \d+ \(.*?\) of pipeline caused error: ", "", str(error), flags=re.DOTALL)
    if text.startswith("WRONGTYPE"):
        return KeyForeign(
            f"{key} holds something that statecast did not put there",
            remedy="Find out what else writes to this Redis. Give the pipeline another name or another database there,"
            f" or, if nobody needs it: DEL {key}",
        )
    if isinstance(error, redis.exceptions.NoPermissionError) or "has no permissions" in text:
        return TransportRefused(f"Redis refuses: {text}", remedy=_permission(text, key))
    if isinstance(error, redis.exceptions.OutOfMemoryError) or text.startswith("OOM"):
        return TransportFull(f"Redis is out of memory: {text}")
    if isinstance(error, _REFUSED_FOR_NOW) or text.split(" ", 1)[0] in _TRANSIENT:
        return TransportUnreachable(f"Redis refuses: {text}")
    return TransportRefused(f"Redis refuses: {text}")


def _permission(text: str, key: str) -> str | None:
    """The command that permits what this text says is not permitted."""
    found = re.search(r"(?:User (\S+)|user) has no permissions to run the '([\w|]+)' command", text)
    if found is not None:
        user, command = found[1] or "USER", found[2]
        rule = f"'(+{command} ~{key})'" if command in _OWN_KEY else f"+{command}"
    elif re.search("access (a key|one of the keys)", text):
        user, rule = "USER", f"'~{key.partition(':')[0]}:*'"
    else:
        return None
    return f"Permit it to transport.url's user: ACL SETUSER {user} {rule}"
