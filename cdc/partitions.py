"""ATTACH and DETACH PARTITION, and DROP of one: rows come and go with a partition, and the log tells nothing of it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from cdc.snapshot.run import Run
from cdc.source.partitions import Partitions

log = logging.getLogger(__name__)

ATTACHED: Final = "a partition was attached to its table, and the log does not tell the rows that it had"
GONE: Final = "a partition was detached from its table or dropped, and the log does not tell that its rows are gone"


def why_rows_moved(before: Collection[int], now: Mapping[int, bool]) -> str | None:
    """Why a snapshot is needed, if one is. `now`: the partitions' OIDs, and whether each was attached."""
    if set(before) - now.keys():
        return GONE
    if any(attached for oid, attached in now.items() if oid not in before):
        return ATTACHED
    return None


def by_label(members: Mapping[str, Sequence[int]], found: Partitions) -> dict[str, list[int]]:
    """The OIDs of the partitions of each event's tables, as they are kept. `members`: label -> OIDs of the tables."""
    return {label: sorted({one for oid in oids for one in found[oid]}) for label, oids in members.items()}


def runs_after_moves(
    members: Mapping[str, Sequence[int]], before: Mapping[str, Sequence[int]], found: Partitions, planned: Sequence[Run]
) -> list[Run]:
    """Runs for events whose rows came or went with partitions, but for those that are planned already."""
    covered = {run.event for run in planned}
    runs = []
    for label in [label for label in members if label in before and label not in covered]:
        now = {oid: attached for table in members[label] for oid, attached in found[table].items()}
        if (reason := why_rows_moved(before[label], now)) is not None:
            log.warning("%s: %s. A snapshot of it is made", label, reason)
            runs.append(Run.new(label, reason=reason))
    return runs
