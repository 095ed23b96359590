"""What `cdc status` tells of rows that a hook failed on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from cdc.parked import Parked
from cdc.wording import counted

MOST_SHOWN: Final = 100
"""So many rows of an event are in the JSON."""
_FEW: Final = 5
"""So many are in the text."""


def parked_report(parked: Parked) -> list[dict[str, Any]]:
    """For each event with parked rows: how many, what failed how often, and the oldest rows with their keys."""
    report = []
    for event, count in parked.counts().items():
        rows = [row for row in parked.rows if row.event == event]
        errors: dict[tuple[str, str], int] = {}
        for row in rows:
            errors[row.error, row.line] = errors.get((row.error, row.line), 0) + 1
        report.append(
            {
                "event": event,
                "count": count,
                "since": min((row.at for row in rows), default=None),
                "errors": [{"error": error, "line": line, "count": number} for (error, line), number in errors.items()],
                "rows": [
                    {"key": json.loads(row.key), "position": row.position, "error": row.error, "line": row.line}
                    for row in rows[:MOST_SHOWN]
                ],
            }
        )
    return report


def what_is_parked(event: Mapping[str, Any]) -> tuple[str, str]:
    """What is wrong with an event that has parked rows, and what to do."""
    rows = "1 row is" if event["count"] == 1 else f"{event['count']:,} rows are"
    raised = ", ".join(f"{each['error']} in {each['line']}" for each in event["errors"])
    return (
        f"{rows} not published: the event's transform raised {raised}",
        f"Mend it, start the reader again, and run `cdc snapshot {event['event']}`.",
    )


def parked_lines(events: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Which rows are parked, in words."""
    for event in events:
        for row in event["rows"][:_FEW]:
            key = json.dumps(row["key"], ensure_ascii=False, separators=(",", ":"))
            yield f"{event['event']} {key}, changed at {row['position']}: {row['error']} in {row['line']}"
        if more := event["count"] - min(len(event["rows"]), _FEW):
            yield f"{event['event']}: {counted(more, 'more row')}"
