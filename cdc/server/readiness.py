"""Whether a reader may start at a server, and how what is wrong is mended where that server runs.

One judgement for `cdc init`, which tells what to change, `cdc check`, which tells all, and `cdc run`, which refuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from cdc.server.facts import ServerFacts
from cdc.server.providers import NEON
from cdc.source.slot import Slot
from cdc.wording import size
from transforms.finding import Finding
from transforms.names import quote_identifier

STANDBY: Final = "is a standby, where a reader cannot write its marks"

_DAY_SECONDS: Final = 86_400
_LEAST_KEPT_BYTES: Final = 1 << 30
_USUALLY_KEPT_BYTES: Final = 10 << 30
_MORE: Final = 10
"""How many slots or walsenders are added where all are in use."""


def server_findings(facts: ServerFacts, application_name: str) -> Iterator[Finding]:
    """What holds for every reader; `application_name` is the name under which it will connect."""
    provider = facts.provider
    if facts.standby:
        yield Finding("error", "server", STANDBY, "Name the primary in source.dsn.")
    if facts.pooled:
        yield Finding(
            "warning", "pooler", "a pooler or proxy stands between, which must pass replication connections through",
            "If `cdc run` cannot replicate through it, write the database's own host and port in source.dsn.",
        )  # fmt: skip
    if facts.wal_level == "logical":
        yield Finding("ok", "wal_level", "logical")
    else:
        yield Finding("error", "wal_level", f"{facts.wal_level}, must be logical", provider.logical)
    if _is_synchronous(application_name, facts.synchronous_standby_names):
        yield Finding(
            "error", "synchronous_standby_names",
            f"matches {application_name}: commits of the application would wait for the reader",
            "Name the standbys one by one in synchronous_standby_names.",
        )  # fmt: skip
    yield _wal_limit(facts)
    if provider.note:
        yield Finding("ok", provider.name, provider.note)


def role_finding(facts: ServerFacts) -> Finding:
    """Whether the role of this session may read the log."""
    if facts.may_replicate:
        return Finding("ok", "role", f"{facts.role} may replicate")
    remedy = facts.provider.let_replicate(quote_identifier(facts.role))
    return Finding("error", "role", f"{facts.role} may not replicate", remedy)


def room_findings(facts: ServerFacts, slot: Slot | None) -> Iterator[Finding]:
    """Whether a slot can be made, unless it is there, and whether a reader can be served, unless one is."""
    if slot is None:
        yield free_slots(facts)
    if slot is None or slot.active_pid is None:  # at the start of a reader, its last connection may still have to end
        yield _free(facts, "max_wal_senders", facts.used_senders, facts.max_wal_senders)


def free_slots(facts: ServerFacts) -> Finding:
    """Whether one more slot can be made."""
    return _free(facts, "max_replication_slots", facts.used_slots, facts.max_replication_slots)


def _free(facts: ServerFacts, setting: str, used: int, limit: int) -> Finding:
    if used < limit:
        return Finding("ok", setting, f"{limit}, {used} in use")
    remedy = facts.provider.set(setting, limit + _MORE, restart=True)
    return Finding("error", setting, f"all {limit} are in use", remedy)


def _is_synchronous(name: str, standby_names: str) -> bool:
    """Whether synchronous_standby_names matches a client's name: by whole names, whatever their case.

    Source: https://www.postgresql.org/docs/current/runtime-config-replication.html#GUC-SYNCHRONOUS-STANDBY-NAMES
    """
    names = {found.strip('"').lower() for found in re.findall(r'"[^"]*"|[^\s,()]+', standby_names)}
    return not names.isdisjoint(("*", name.lower()))


def _wal_limit(facts: ServerFacts) -> Finding:
    thing = "max_slot_wal_keep_size"
    if facts.provider is NEON or facts.max_slot_wal_keep_size != "-1":
        return Finding("ok", thing, facts.max_slot_wal_keep_size)
    megabytes, why = _kept_megabytes(facts)
    return Finding(
        "warning", thing, "-1: a reader that is down for long fills the primary's disk",
        f"{facts.provider.set(thing, megabytes, 'MB')}\n-- {size(megabytes << 20)}: {why}",
    )  # fmt: skip


def _kept_megabytes(facts: ServerFacts) -> tuple[int, str]:
    """How much WAL a slot may hold, and why just that."""
    if facts.wal_bytes_per_second is None:
        wanted, why = _USUALLY_KEPT_BYTES, "a guess, since WAL is counted for less than an hour"
    else:
        wanted = max(round(facts.wal_bytes_per_second * _DAY_SECONDS), _LEAST_KEPT_BYTES)
        why = f"a day's WAL at the average of {size(facts.wal_bytes_per_second)}/s, and 1 GB at least"
    if facts.free_bytes is None:
        return wanted >> 20, f"{why}; keep it below what the disk has free"
    kept = max(min(wanted, facts.free_bytes // 2) >> 20, 1)
    return kept, f"{why}; not more than half of the {size(facts.free_bytes)} that are free"
