"""What the source's server tells of itself and of the role that asks: one query for `cdc init`, `check` and `run`."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib import resources
from typing import Final

from cdc.errors import SourceError
from cdc.server.providers import Provider, provider_of
from cdc.source.connection import Source

_FACTS: Final = resources.files("cdc.server").joinpath("facts.sql").read_text()
_OLDEST_VERSION: Final = 150_000


class ServerTooOld(SourceError):
    """The server lacks what is asked of its catalog and its log."""

    remedy = "Upgrade the source to Postgres 15 or newer."


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """The server, and this session's role in it."""

    version: int
    """Like 180006."""
    database: str
    role: str
    provider: Provider
    standby: bool
    wal_level: str
    max_slot_wal_keep_size: str
    """As SHOW prints it; `-1` for no limit."""
    max_replication_slots: int
    used_slots: int
    max_wal_senders: int
    used_senders: int
    wal_bytes_per_second: float | None
    """On average, since its statistics began; None when that is less than an hour ago."""
    free_bytes: int | None
    """Of the disk that the WAL is on, where that is this machine's."""
    synchronous_standby_names: str
    tls: str | None
    """The protocol's version, or None: not encrypted."""
    by_socket: bool
    """Reached over a Unix socket."""
    pooled: bool
    """A pooler or proxy stands between: it told another process id than the server's."""
    may_replicate: bool
    may_create: bool
    """CREATE on the database, without which the role may not make a publication."""
    counted_days: float | None
    """How long writes to tables have been counted; None where the server does not know."""


def describe_server(source: Source) -> ServerFacts:
    """Ask the server. Raises ServerTooOld, SourceError."""
    version = source.server_version()
    if version < _OLDEST_VERSION:
        raise ServerTooOld(f"Postgres {version // 10_000} is older than 15")
    ((facts,),) = source.query(_FACTS)
    pooled = facts.pop("backend_pid") != source.backend_pid
    traces, directory = frozenset(facts.pop("traces")), facts.pop("data_directory")
    free_bytes = _free_bytes(directory) if facts["by_socket"] and directory and not pooled else None
    return ServerFacts(version=version, provider=provider_of(traces), pooled=pooled, free_bytes=free_bytes, **facts)


def _free_bytes(directory: str) -> int | None:
    try:
        return shutil.disk_usage(directory).free
    except OSError:  # the socket is that of a container or a tunnel, or the directory is closed to us
        return None
