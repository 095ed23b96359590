"""What `cdc check` says of the reader's Redis user: whether it may run every command that a reader needs.

Redis judges a command's rights before it queues it in a transaction, so each is sent between MULTI and the end of the
connection, which forgets the transaction: nothing is run, and it needs no right to ask (ACL DRYRUN would be one more).
Source: https://redis.io/docs/latest/develop/using-commands/transactions/
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import redis

from cdc.transport import translated_errors
from transforms.durability import MEMORY, Durability
from transforms.finding import Finding
from transforms.keys import Keys

KEY: Final = "KEY"
"""Stands for a key of the pipeline, which does not exist."""
ALONE: Final[tuple[tuple[str, ...], ...]] = (
    ("client|reply", "ON"),
    ("watch", KEY),
    ("unwatch",),
    ("exec",),
    ("multi",),
)
"""What has no place in a transaction. None of them does anything here; the last one begins the transaction."""
QUEUED: Final[tuple[tuple[str, ...], ...]] = (
    ("ping",),
    ("info",),
    ("scan", "0"),
    ("select", "0"),
    ("exists", KEY),
    ("del", KEY),
    ("unlink", KEY),
    ("get", KEY),
    ("set", KEY, ""),
    ("mget", KEY),
    ("hexists", KEY, ""),
    ("hgetall", KEY),
    ("hget", KEY, ""),
    ("hmget", KEY, ""),
    ("hkeys", KEY),
    ("hset", KEY, "", ""),
    ("hsetnx", KEY, "", ""),
    ("hdel", KEY, ""),
    ("hincrby", KEY, "", "0"),
    ("xadd", KEY, "*", "", ""),
    ("xrange", KEY, "-", "+"),
    ("xdel", KEY, "0-1"),
    ("xsetid", KEY, "0-1"),
    ("xtrim", KEY, "MINID", "0"),
    ("xpending", KEY, ""),
    ("xinfo|stream", KEY),
    ("xinfo|groups", KEY),
    ("xinfo|consumers", KEY, ""),
    ("xgroup|destroy", KEY, ""),
    ("memory|usage", KEY),
    ("script|load", ""),
    ("evalsha", "", "1", KEY),
)


WAITING: Final = {"fsync": ("waitaof", "1", "0", "1"), "replicas": ("wait", "1", "1")}
"""What a reader needs besides, by the kind of its `transport.durability`."""


def rights_findings(client: redis.Redis, keys: Keys, durability: Durability = MEMORY) -> Iterator[Finding]:
    """Whether the client's user may do all of it. Raises TransportError."""
    user = str(client.connection_pool.connection_kwargs.get("username") or "default")
    waiting = [command for kind, command in WAITING.items() if kind == durability.kind]
    refused = _refused(client, f"{keys.pipeline}:check", [*QUEUED, *waiting])
    commands = [command for command, why in refused if "command" in why]
    if commands:
        rules = " ".join(f"+{command}" for command in commands)
        what = f"{user} may not run {', '.join(map(_as_written, commands))}"
        yield Finding("error", "transport user", what, f"ACL SETUSER {user} {rules}")
    if len(commands) < len(refused):
        what = f"{user} may not use the keys {keys.everything}"
        yield Finding("error", "transport user", what, f"ACL SETUSER {user} ~{keys.everything}")
    if not refused:
        yield Finding("ok", "transport user", f"{user} may run all that a reader needs")


def _as_written(command: str) -> str:
    return command.replace("|", " ")


def _refused(client: redis.Redis, key: str, queued: Sequence[tuple[str, ...]]) -> list[tuple[str, str]]:
    """(command, what Redis says) of those that the user may not run."""
    found = []
    with translated_errors():
        connection: Any = client.connection_pool.get_connection()
        try:
            for command in ALONE:
                if (refusal := _ask(connection, command, key)) is not None:
                    found.append((command[0], refusal))
            if found and found[-1][0] == "multi":  # no transaction has begun: what follows would be run
                return found
            for command in queued:
                if (refusal := _ask(connection, command, key)) is not None:
                    found.append((command[0], refusal))
        finally:
            connection.disconnect()
            client.connection_pool.release(connection)
    return found


def _ask(connection: Any, command: Sequence[str], key: str) -> str | None:
    """What Redis says to who may not run a command; None: he may."""
    try:
        connection.send_command(*_words(command, key))
        connection.read_response()
    except redis.exceptions.OutOfMemoryError:  # which is judged after the rights
        if command == ("multi",):
            raise
    except redis.ResponseError as error:
        text = str(error)
        if isinstance(error, redis.exceptions.NoPermissionError) or "NOPERM" in text:
            return text
        if "without MULTI" not in text and not (command[0] == "waitaof" and "unknown command" in text):
            raise
    return None


def _words(command: Sequence[str], key: str) -> list[str]:
    name, *arguments = command
    return [*name.split("|"), *(key if argument == KEY else argument for argument in arguments)]
