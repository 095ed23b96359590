"""Which settings of a server are to be changed before a reader can run, and how that is done where it runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cdc.init.facts import ServerFacts
from cdc.init.providers import MANAGED, NEON, SELF_HOSTED, Provider, provider_of
from transforms.finding import Finding

_WAL_KEPT: Final = "50GB"


def settings_to_change(server: ServerFacts) -> list[Finding]:
    """What is not right yet, the gravest first; empty when the server is ready."""
    provider = provider_of(server.traces)
    return [*_errors(server, provider), *_warnings(server, provider)]


def _errors(server: ServerFacts, provider: Provider) -> Iterator[Finding]:
    if server.standby:
        yield Finding(
            "error", "server", "a standby, from which nothing can be published", "Point SOURCE_DSN at the primary."
        )
    if server.wal_level != "logical":
        yield Finding("error", "wal_level", f"{server.wal_level}, must be logical", _logical(provider))
    for name, most, used, what in (
        ("max_replication_slots", server.max_replication_slots, server.used_slots, "slot"),
        ("max_wal_senders", server.max_wal_senders, server.used_senders, "walsender"),
    ):
        if used >= most:
            remedy = _set(provider, name, str(max(10, most + 5)), restart=True)
            yield Finding("error", name, f"{used} of {most} in use, and the reader needs a {what}", remedy)


def _warnings(server: ServerFacts, provider: Provider) -> Iterator[Finding]:
    if server.max_slot_wal_keep_size == "-1" and provider is not NEON:
        yield Finding(
            "warning", "max_slot_wal_keep_size", "-1: a reader that is down fills the primary's disk",
            f"-- less than the free disk:\n{_set(provider, 'max_slot_wal_keep_size', _WAL_KEPT, restart=False)}",
        )  # fmt: skip
    if provider.note:
        yield Finding("warning", provider.name, provider.note)


def _logical(provider: Provider) -> str:
    if provider is not SELF_HOSTED:
        return provider.logical
    elsewhere = [f"-- {other.name}: {other.logical}" for other in MANAGED]
    return "\n".join([provider.logical, *elsewhere])


def _set(provider: Provider, name: str, value: str, *, restart: bool) -> str:
    how = provider.other.format(name=name, value=value)
    if provider is SELF_HOSTED:
        how += " -- then restart the server" if restart else " SELECT pg_reload_conf();"
    return how
