"""The status as people meet it at night: what is wrong first, since when, and what to do."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from cdc.diagnosis import problems
from cdc.status import lag_seconds, seconds_left
from cdc.status_view import show, view

NOW = 1_790_000_000.0
SLOT = {
    "name": "cdc_shop",
    "confirmed": "0/1C52C10",
    "retained_bytes": 24_000_000,
    "limit_bytes": 64_000_000,
    "seconds_left": 86_400.0 * 3,
    "wal_bytes_per_second": 154.0,
    "wal_status": "reserved",
    "active_pid": 4855,
}
READER = {
    "state": "streaming",
    "since": NOW - 60,
    "alive_at": NOW - 1,
    "reason": None,
    "remedy": None,
    "published": "0/1C52DF0",
    "lag_bytes": 0,
    "lag_seconds": 0.0,
}
SINK = READER | {"name": "billing", "applied_lsn": "0/1C52DF0", "dead": 0}
AUDIT = {
    "name": "audit",
    "external": True,
    "position": "29115000-1000000",
    "entries": 5000,
    "bytes": 471_000,
    "passed": False,
}
BILLING = AUDIT | {"name": "billing", "external": False}
SHORT = {"used_bytes": 80_000_000, "limit_bytes": 100_000_000, "is_short": True}
STREAM = {
    "key": "shop:customer",
    "entries": 5002,
    "bytes": 472_000,
    "last_id": "29115376-1000000",
    "held_by": [],
    "held_back_by": [],
    "readers": [],
}
RUN = {
    "event": "customer.v1",
    "where": None,
    "to": None,
    "state": "done",
    "rows": 5000,
    "share": 1.0,
    "reason": None,
    "finished_at": NOW - 60,
}


def status(
    *,
    slot: Any = None,
    reader: Any = None,
    sink: Any = None,
    source: Any = None,
    transport: Any = None,
    memory: Any = None,
    stream: Any = None,
) -> dict[str, Any]:
    """A status in which all is well, but for what is given."""
    found: dict[str, Any] = {
        "pipeline": "shop",
        "at": NOW,
        "source": {"reachable": True, "slot": SLOT | (slot or {}), **(source or {})},
        "transport": {"reachable": True, **(transport or {})},
        "memory": {"used_bytes": 1_000_000, "limit_bytes": None, "is_short": False} | (memory or {}),
        "reader": READER | (reader or {}),
        "streams": [STREAM | (stream or {})],
        "sinks": [SINK | (sink or {})],
        "snapshots": [RUN],
    }
    return found | {"problems": [problem.to_dict() for problem in problems(found)]}


def told(found: dict[str, Any], width: int = 100) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(view(found))
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def test_when_all_is_well_the_first_line_says_so() -> None:
    text = told(status())
    assert text.splitlines()[0] == "pipeline shop: all is well"
    assert "if it stood still: lost in 3 d 0 h at the present 154 B/s" in text
    assert text.count("up to date") == 2


def test_names_are_shown_as_they_are() -> None:
    text = told(status() | {"streams": [STREAM | {"key": f"shop:{name}"} for name in ("dog", "link", "star")]})
    assert [name for name in ("dog", "link", "star") if f"shop:{name}: 5,002 entries" in text] == [
        "dog",
        "link",
        "star",
    ]


def test_a_snapshot_of_a_part_names_its_condition() -> None:
    part = RUN | {"where": "name = 'Ada'", "to": "billing", "state": "running", "rows": 3, "share": 0.5}
    assert "customer.v1 where name = 'Ada' for billing: running, 3 rows, 50%" in told(status() | {"snapshots": [part]})


def test_a_snapshot_that_was_refused_is_a_problem_with_its_reason() -> None:
    refused = RUN | {"where": "lower(name) = 'ada'", "state": "refused", "reason": "conditions have no functions"}
    found = problems(status() | {"snapshots": [refused]})
    assert [problem.severity for problem in found] == ["warning"]
    assert found[0].what == "refused a snapshot of customer.v1 where lower(name) = 'ada': conditions have no functions"
    assert "cdc snapshot" in str(found[0].remedy)
    assert "customer.v1 where lower(name) = 'ada': refused" in told(status() | {"snapshots": [refused]})


def test_of_many_streams_those_that_somebody_has_to_read_are_told_and_the_others_are_counted() -> None:
    streams = [STREAM | {"key": f"shop:event_{number}", "readers": [BILLING | {"entries": 0}]} for number in range(40)]
    text = told(status() | {"streams": streams}, 80)
    assert "stream    40 streams: 200,080 entries, 18 MB" in text
    assert text.count("shop:event_") == 0
    for number in range(12):
        streams[number] = streams[number] | {"readers": [BILLING | {"bytes": 1000 + number}]}
    streams[30] = streams[30] | {"readers": [AUDIT | {"bytes": 1}], "held_back_by": ["audit"]}
    streams[31] = streams[31] | {"readers": [BILLING | {"entries": 0, "passed": True}]}
    text = told(status() | {"streams": streams}, 80)
    assert [line.split(":")[1] for line in text.splitlines() if "shop:event_" in line] == [
        *("event_30", "event_31", "event_11", "event_10", "event_9", "event_8", "event_7", "event_6"),
    ]
    assert "32 more: 160,064 entries, " in text


def test_all_streams_are_told_where_they_are_few() -> None:
    assert told(status() | {"streams": [STREAM] * 8}).count("5,002 entries") == 8


def test_sinks_stand_before_the_streams_which_may_be_more_than_a_screen_takes() -> None:
    text = told(status())
    assert text.index("sink  ") < text.index("stream  ")


def test_in_a_pipe_no_line_ends_in_blanks(capsys: pytest.CaptureFixture[str]) -> None:
    show(status(reader={"state": "stopped", "reason": "x", "remedy": "y"}))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 8
    assert [line for line in lines if line != line.rstrip()] == []


def test_a_redis_that_does_not_answer_is_told_so_once() -> None:
    silent = {"reachable": False, "reason": "Redis does not answer: Connection refused.", "remedy": "r"}
    [problem] = problems(status(transport=silent))
    assert problem.what == "does not answer: Connection refused."
    [problem] = problems(status(transport=silent | {"reason": "Redis refuses: NOAUTH"}))
    assert problem.what == "cannot be used: Redis refuses: NOAUTH"


def test_of_many_snapshots_those_at_work_are_told_and_the_others_are_counted() -> None:
    runs = [RUN | {"event": f"event_{number}.v1"} for number in range(40)]
    runs[7] |= {"state": "running", "rows": 10, "share": 0.5}
    text = told(status() | {"snapshots": runs})
    assert "event_7.v1: running, 10 rows, 50%" in text
    assert "39 events: done, 195,000 rows" in text
    assert "event_8" not in text


def test_why_the_reader_made_a_snapshot_by_itself_is_told() -> None:
    runs = [RUN | {"reason": "its table was taken out of the publication and added again"}]
    assert "made because its table was taken out of the publication" in told(status() | {"snapshots": runs})
    assert "made because" not in told(status())


def test_a_sink_that_is_not_there_yet_or_still_fills_its_replicas_is_told() -> None:
    assert "none has run yet" in told(status() | {"sinks": []})
    text = told(status(sink={"state": "snapshotting", "applied_lsn": None, "lag_bytes": None, "rows": 340_000}))
    assert "340,000 rows written; it has not reached the end of its streams yet" in text


def test_a_table_that_a_sink_rebuilds_is_told() -> None:
    rebuild = {"event": "customer.v1", "table": "replica.customers", "state": "filling", "rows": 12_000, "reason": None}
    assert "rebuilds replica.customers: filling, 12,000 rows" in told(status(sink={"rebuilds": [rebuild]}))
    waiting = rebuild | {"state": "filled", "reason": "waits for who holds a lock on replica.customers"}
    text = " ".join(told(status(sink={"rebuilds": [waiting]})).split())
    assert "filled, 12,000 rows; it waits for who holds a lock on replica.customers" in text


@pytest.mark.parametrize(
    ("change", "severity", "part", "what"),
    [
        ({"slot": {"active_pid": None, "seconds_left": 480.0}}, "error", "slot", "it is lost in 8 min 0 s"),
        ({"slot": {"active_pid": None, "seconds_left": 1e6}}, "warning", "slot", "read by nobody"),
        ({"slot": {"active_pid": None, "seconds_left": None}}, "warning", "slot", "read by nobody"),
        ({"slot": {"active_pid": None, "wal_status": "unreserved"}}, "error", "slot", "read by nobody"),
        ({"slot": {"wal_status": "lost"}}, "error", "slot", "cdc_shop is lost"),
        ({"source": {"slot": None}}, "error", "slot", "does not exist any more"),
        ({"source": {"reachable": False, "reason": "refused", "remedy": "r"}}, "error", "source", "refused"),
        ({"transport": {"reachable": False, "reason": "loading", "remedy": "r"}}, "error", "transport", "loading"),
        ({"reader": {"state": "stopped", "reason": "a hole", "remedy": "r"}}, "error", "reader", "stopped: a hole"),
        ({"reader": {"state": "stopped"}}, "warning", "reader", "was stopped"),
        ({"reader": {"alive_at": NOW - 11}}, "error", "reader", "no sign of life, last streaming"),
        ({"reader": {"state": "reconnecting", "reason": "x", "remedy": "r"}}, "warning", "reader", "reconnecting: x"),
        ({"reader": {"state": "paused", "reason": "waits", "remedy": "r"}}, "warning", "reader", "paused: waits"),
        ({"reader": {"untrimmed": {"reason": "no", "remedy": "r"}}}, "error", "reader", "does not trim streams: no"),
        ({"memory": SHORT}, "warning", "transport", "76 MB of maxmemory 95 MB"),
        (
            {"memory": SHORT, "stream": {"readers": [AUDIT]}},
            "warning",
            "transport",
            "audit in shop:customer (460",
        ),
        ({"stream": {"readers": [AUDIT], "held_back_by": ["audit"]}}, "warning", "group audit", "back 5,000 entries"),
        ({"stream": {"readers": [BILLING | {"passed": True}]}}, "warning", "sink billing", "was trimmed past"),
        ({"sink": {"state": "stopped", "reason": "misfit", "remedy": "r"}}, "error", "sink billing", "misfit"),
        ({"sink": {"dead": 1}}, "warning", "sink billing", "1 event is parked"),
        ({"sink": {"dead": 1200}}, "warning", "sink billing", "1,200 events are parked"),
        ({"sink": {"gone": ["customer.v1"]}}, "warning", "sink billing", "maps customer.v1, which is not pub"),
        ({"sink": {"lag_seconds": 125.0, "lag_bytes": 9}}, "warning", "sink billing", "2 min 5 s behind"),
    ],
)
def test_each_thing_that_is_wrong_is_told_once_with_what_to_do(
    change: dict[str, Any], severity: str, part: str, what: str
) -> None:
    found = status(**change)
    (problem,) = found["problems"]
    assert (problem["severity"], problem["part"]) == (severity, part)
    assert what in problem["what"]
    assert problem["remedy"]
    assert f"-> {problem['remedy'][:20]}" in told(found)


def test_who_has_not_read_what_is_listed_beside_the_stream() -> None:
    text = told(
        status(
            stream={
                "entries": 1,
                "readers": [AUDIT, BILLING | {"entries": 1}, BILLING | {"name": "mail", "entries": 0}],
            }
        )
    )
    assert "unread by audit (external group): 5,000 entries, 460 kB" in text
    assert "unread by billing: 1 entry, " in text
    assert "shop:customer: 1 entry, " in text
    assert "mail" not in text


def test_errors_come_before_warnings() -> None:
    found = status(reader={"state": "stopped"}, sink={"state": "stopped", "reason": "misfit", "remedy": "r"})
    assert told(found).splitlines()[0] == "pipeline shop: 1 error, 1 warning"
    assert [problem["severity"] for problem in found["problems"]] == ["error", "warning"]


def test_a_reason_of_the_past_is_no_problem_of_a_reader_at_work() -> None:
    assert status(reader={"reason": "it was unreachable", "remedy": "r"})["problems"] == []


@pytest.mark.parametrize("width", [80, 140])
def test_no_line_is_wider_than_the_terminal_and_nothing_is_cut(width: int) -> None:
    reason = "the slot is lost: " + "Postgres removed WAL that it still needed, " * 4
    text = told(status(reader={"state": "stopped", "reason": reason, "remedy": reason}), width)
    assert max(map(len, text.splitlines())) <= width
    assert " ".join(text.split()).count("Postgres removed WAL that it still needed") == 8


@pytest.mark.parametrize(
    ("safe", "rate", "expected"), [(None, 5.0, None), (100, 0.0, None), (100, 4.0, 25.0), (-5, 1.0, 0.0)]
)
def test_the_time_left_is_what_may_still_be_written_at_the_present_rate(
    safe: int | None, rate: float, expected: float | None
) -> None:
    assert seconds_left(safe, rate) == expected


@pytest.mark.parametrize(
    ("lag_bytes", "behind_since", "expected"),
    [
        (0, None, 0.0),
        (0, NOW - 500, 0.0),  # since then it was published
        (500, NOW - 3600, 3600.0),  # though the source has come to rest, and writes next to nothing
        (500, None, 60.0),  # all was published when it fell silent
        (500, NOW + 5, 0.0),  # by another clock
    ],
)
def test_a_lag_in_seconds_is_that_of_the_log(lag_bytes: int, behind_since: float | None, expected: float) -> None:
    reader = READER | {"lag_bytes": lag_bytes, "alive_at": NOW - 60, "behind_since": behind_since}
    assert lag_seconds(reader, NOW) == expected


def test_a_reader_of_an_earlier_version_has_no_absurd_lag() -> None:
    assert lag_seconds(READER | {"lag_bytes": 500}, NOW) == 1.0
