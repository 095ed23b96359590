"""What `cdc-sink check` says of the sink's Redis user: whether it may run every command that a sink needs.

Redis judges the right before it looks at what a command is to do. So each is asked for something that changes nothing
where it is permitted: reads of a key that does not exist, and writes that are refused for their arguments. (The
reader's check uses a transaction that is never executed; that needs a right to MULTI, which a sink does not have.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import redis

from sinks.transport import connect, translated_errors
from transforms.address import Address
from transforms.finding import Finding
from transforms.keys import Keys

KEY: Final = "KEY"
"""Stands for a key of the pipeline, which does not exist."""
ON_ANY_KEY: Final[tuple[tuple[str, ...], ...]] = (
    ("ping",),
    ("info", "server"),
    ("select", "DATABASE"),
    ("exists", KEY),
    ("hmget", KEY, ""),
    ("hkeys", KEY),
    ("xrange", KEY, "-", "+"),
    ("xread", "COUNT", "1", "STREAMS", KEY, "0-0"),
    ("xinfo|stream", KEY),
    ("xinfo|groups", KEY),
    ("xgroup|create", KEY, "check", "0-0"),
    ("xgroup|setid", KEY, "check", "0-0"),
    ("xgroup|destroy", KEY, "check"),
)
ASKED_BY_CHECK: Final = frozenset({"ping", "info", "select", "exists", "hmget", "xinfo|stream"})
"""Without these nothing more can be tested."""


class Rights(NamedTuple):
    """What a user lacks."""

    findings: list[Finding]
    may_go_on: bool
    """Whether all else can be tested."""


class _Refusal(NamedTuple):
    command: str
    of_key: bool
    """The command is permitted, this key is not."""


def rights(address: Address, keys: Keys, sink: str) -> Rights:
    """Whether the user that the address names may do all of it. Raises SinkError and what `connect` raises."""
    with connect(address) as client, translated_errors(keys.meta):
        options = client.connection_pool.connection_kwargs
        user, database = str(options.get("username") or "default"), str(options.get("db") or 0)
        connection: Any = client.connection_pool.get_connection()
        try:
            any_key = list(_refused(connection, f"{keys.pipeline}:check", database))
            own_key = list(_refused_on_own_keys(connection, keys, sink))
        finally:
            connection.disconnect()
            client.connection_pool.release(connection)
    findings = []
    if commands := [refusal.command for refusal in any_key if not refusal.of_key]:
        what = f"{user} may not run {', '.join(command.replace('|', ' ') for command in commands)}"
        rules = " ".join(f"+{command}" for command in commands)
        findings.append(Finding("error", "Redis user", what, f"ACL SETUSER {user} {rules}"))
    if len(commands) < len(any_key):
        what = f"{user} may not use the keys {keys.everything}"
        findings.append(Finding("error", "Redis user", what, f"ACL SETUSER {user} '~{keys.everything}'"))
    for command, key in own_key:
        what = f"{user} may not run {command} on {key}"
        findings.append(Finding("error", "Redis user", what, f"ACL SETUSER {user} '(+{command} ~{key})'"))
    may_go_on = not any(refusal.of_key or refusal.command in ASKED_BY_CHECK for refusal in any_key)
    return Rights(findings or [Finding("ok", "Redis user", f"{user} may run all that a sink needs")], may_go_on)


def _refused(connection: Any, key: str, database: str) -> Iterator[_Refusal]:
    stands_for = {KEY: key, "DATABASE": database}
    for name, *arguments in ON_ANY_KEY:
        refusal = _ask(connection, [*name.split("|"), *(stands_for.get(word, word) for word in arguments)])
        if refusal is not None:
            yield _Refusal(name, "command" not in refusal)


def _refused_on_own_keys(connection: Any, keys: Keys, sink: str) -> Iterator[tuple[str, str]]:
    """(command, key) of what a sink writes beside its database, and may not."""
    status = keys.sink_status(sink)
    for command, key, arguments in (
        ("xadd", keys.requests, ["0-0", "events", "[]"]),  # the id that no entry has
        ("set", status, ["", "NX", "XX"]),  # only if it is there, and only if it is not
    ):
        if _ask(connection, [command, key, *arguments]) is not None:
            yield command, key


def _ask(connection: Any, words: Sequence[str]) -> str | None:
    """What Redis says to who may not do it; None: he may, whatever it says to the arguments."""
    connection.send_command(*words)
    try:
        connection.read_response()
    except redis.ResponseError as error:
        text = str(error)
        if isinstance(error, redis.exceptions.NoPermissionError) or "NOPERM" in text:
            return text
    return None
