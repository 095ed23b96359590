"""What Redis may lose of what it was given, by what it keeps on disk and by what `transport.durability` waits for."""

from __future__ import annotations

from collections.abc import Iterator

from cdc.durability import FSYNC_SECONDS
from cdc.transport import ServerFacts
from transforms.config import TransportConfig
from transforms.finding import Finding

_APPEND_ONLY = "CONFIG SET appendonly yes\n-- and `appendonly yes` in its configuration file, which a restart reads"
_STOPS = "the reader notices, publishes again what the slot still holds, and stops where that is not enough"


def durability_findings(facts: ServerFacts, config: TransportConfig) -> Iterator[Finding]:
    """In plain words. An error among them also ends a start."""
    if config.durability.kind == "memory":
        yield from _memory(facts, f"{config.confirm_delay_seconds:g} s")
    elif config.durability.kind == "fsync":
        yield from _fsync(facts)
    else:
        yield from _replicas(facts, config.durability.replicas)


def _memory(facts: ServerFacts, delay: str) -> Iterator[Finding]:
    """An event counts as safe some time after Redis' reply."""
    if facts.append_only is None:
        yield Finding("warning", "persistence", "the server does not tell whether it has an append-only file")
    elif not facts.append_only:
        yield Finding(
            "warning", "persistence",
            "no append-only file: a restart of Redis loses what it was given since its last dump. The reader publishes"
            f" again what the slot still holds, which is only the last {delay}, and stops where that is not enough",
            _APPEND_ONLY,
        )  # fmt: skip
    else:
        yield Finding(
            "ok", "persistence",
            "append-only file: a crash of Redis may lose about the last second; the reader confirms to Postgres"
            f" {delay} later, and publishes again what was lost",
        )  # fmt: skip


def _fsync(facts: ServerFacts) -> Iterator[Finding]:
    """An event counts as safe when it is on the server's disk."""
    if facts.append_only is False:
        yield Finding(
            "error", "persistence",
            'no append-only file, so nothing is ever on disk, which transport.durability = "fsync" waits for',
            _APPEND_ONLY,
        )  # fmt: skip
        return
    if facts.append_only is None:
        yield Finding("warning", "persistence", "the server does not tell whether it has an append-only file")
        return
    if facts.can_wait_for_fsync:
        safe = "the slot forgets only what Redis says is on its disk (WAITAOF)"
    elif facts.append_fsync == "always":
        safe = "the slot forgets only what is on Redis' disk (appendfsync always)"
    elif facts.append_fsync == "no":
        yield Finding(
            "error", "persistence",
            "appendfsync is no, so nobody knows when something is on disk, which transport.durability waits for",
            "CONFIG SET appendfsync everysec\n-- and in its configuration file, which a restart reads",
        )  # fmt: skip
        return
    else:
        yield from _lagged(facts)
        return
    yield Finding(
        "ok", "persistence",
        f"append-only file, and {safe}: a crash or a loss of power loses nothing that the slot has forgotten. A"
        f" failover to a replica that lags behind, or a disk that breaks, may: {_STOPS}",
    )  # fmt: skip


def _lagged(facts: ServerFacts) -> Iterator[Finding]:
    told = f"{facts.product} {facts.version} cannot be asked what is on its disk (WAITAOF came with Redis 7.2)"
    later = (
        f"the reader confirms {FSYNC_SECONDS:g} s later, longer than appendfsync everysec takes. With a disk that hangs"
        f" for longer than that, a loss of power may lose more: {_STOPS}"
    )
    if facts.append_fsync is None:
        yield Finding(
            "warning", "persistence", f"{told}, nor does it tell its appendfsync; taken for everysec, {later}",
            "Let transport.url's user read it (ACL SETUSER USER +config|get), or see to it that it is not `no`.",
        )  # fmt: skip
    else:
        yield Finding("warning", "persistence", f"{told}: {later}", "Take Redis 7.2, Valkey, or appendfsync always.")


def _replicas(facts: ServerFacts, wanted: int) -> Iterator[Finding]:
    """An event counts as safe when so many replicas have it in memory too."""
    if facts.replicas < wanted:
        yield Finding(
            "warning", "replicas",
            f"{facts.replicas} of the {wanted} that transport.durability asks for are connected: events are published,"
            " and nothing is confirmed, so the slot keeps the log",
            "Start Redis' replicas, or ask for fewer.",
        )  # fmt: skip
    else:
        yield Finding(
            "ok", "replicas",
            f"the slot forgets only what {wanted} of {facts.replicas} replicas have in memory too (WAIT). That may be"
            " lost when they and this server crash at once, or when a replica without it takes over:"
            f" {_STOPS}",
        )  # fmt: skip
    if facts.append_only is False:
        yield Finding(
            "warning", "persistence",
            "no append-only file: when this server restarts it is empty, and empties its replicas, before one of them"
            " takes over",
            _APPEND_ONLY,
        )  # fmt: skip
