"""What may be trimmed, and who holds it back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.retention import wording
from cdc.retention.entry_trail import MOST_SAMPLES, EntryTrail
from cdc.retention.judging import Backlog, Holder, Judgement, Memory, Rules, StreamSeen, judge
from transforms.position import LSN, Position

BLOCK = Rules(None, "block")


def at(lsn: int) -> Position:
    return Position(LSN(lsn), 1_000_000)


def seen(*holders: Holder, first: int = 1, last: int = 100) -> StreamSeen:
    """One entry for each LSN from the first to the last, of ten bytes."""
    length = last - first + 1
    return StreamSeen("shop:customer", at(first), at(last), length, last, 10 * length, holders)


def sink(lsn: int, name: str = "billing", *, has_group: bool = True, is_passed: bool = False) -> Holder:
    return Holder(name, at(lsn), True, has_group, is_passed)


def group(lsn: int, name: str = "audit") -> Holder:
    return Holder(name, at(lsn), False)


def judged(
    stream: StreamSeen,
    rules: Rules = BLOCK,
    *,
    confirmed: int | None = 1000,
    young: int = 1000,
    memory_is_short: bool = False,
) -> Judgement:
    backlogs = []
    for holder in stream.holders:
        entries = max(0, min(stream.last.commit_lsn - holder.position.commit_lsn, stream.length))
        backlogs.append(Backlog(holder, entries, stream.bytes_of(entries)))
    position = None if confirmed is None else LSN(confirmed)
    return judge(
        stream, backlogs, rules, confirmed=position, young=Position(LSN(young), 0), memory_is_short=memory_is_short
    )


def names(backlogs: tuple[Backlog, ...]) -> list[str]:
    return [backlog.holder.name for backlog in backlogs]


def test_the_last_entry_stays_when_nobody_reads() -> None:
    assert judged(seen()).keep_from == at(100)


def test_the_entry_at_the_lowest_position_stays() -> None:
    judgement = judged(seen(sink(40), group(30), sink(50, "mail")))
    assert judgement.keep_from == at(30)
    assert names(judgement.held_by) == ["audit", "billing", "mail"]


def test_young_entries_stay_though_all_have_read_them() -> None:
    judgement = judged(seen(sink(90)), young=60)
    assert judgement.keep_from == Position(LSN(60), 0)
    assert judgement.held_by == ()


def test_young_entries_go_when_memory_is_short_and_unread_ones_stay() -> None:
    assert judged(seen(sink(90)), young=60, memory_is_short=True).keep_from == at(90)


def test_what_the_source_may_send_again_stays() -> None:
    assert judged(seen(sink(90)), confirmed=70).keep_from == Position(LSN(70), 0)


def test_the_source_never_sends_again_what_is_in_a_stream_of_an_earlier_epoch() -> None:
    assert judged(seen(), confirmed=None).keep_from == at(100)


@pytest.mark.parametrize("laggard", [sink(10), group(10)])
def test_a_laggard_beyond_the_limit_blocks(laggard: Holder) -> None:
    judgement = judged(seen(laggard, sink(99, "mail")), Rules(500, "block"))
    assert (judgement.keep_from, judgement.exempt) == (at(10), ())
    assert names(judgement.blocking) == [laggard.name]


def test_a_laggard_within_the_limit_is_waited_for_and_blocks_nothing() -> None:
    judgement = judged(seen(sink(10)), Rules(900, "block"))
    assert (judgement.keep_from, judgement.blocking) == (at(10), ())


def test_under_resync_a_sink_beyond_the_limit_is_trimmed_past() -> None:
    judgement = judged(seen(sink(10), sink(80, "mail")), Rules(500, "resync"))
    assert (judgement.keep_from, judgement.exempt, judgement.blocking) == (at(80), ("billing",), ())


@pytest.mark.parametrize("laggard", [group(10), sink(10, has_group=False)])
def test_under_resync_who_cannot_be_told_of_it_is_never_trimmed_past(laggard: Holder) -> None:
    judgement = judged(seen(laggard, sink(80, "mail")), Rules(500, "resync"))
    assert (judgement.keep_from, judgement.exempt) == (at(10), ())
    assert names(judgement.blocking) == [laggard.name]


def test_a_sink_that_was_trimmed_past_is_not_waited_for_until_it_has_begun_again() -> None:
    rules = Rules(10_000, "resync")
    away = judged(seen(sink(10, is_passed=True), first=50), rules)
    assert (away.keep_from, away.exempt, away.returned) == (at(100), ("billing",), ())
    back = judged(seen(sink(50, is_passed=True), first=50), rules)
    assert (back.keep_from, back.exempt, back.returned) == (at(50), (), ("billing",))


def test_a_sink_that_was_trimmed_past_is_not_waited_for_under_another_rule_either() -> None:
    assert judged(seen(sink(10, is_passed=True), first=50), Rules(100, "block")).blocking == ()


holders = st.builds(
    Holder,
    st.sampled_from("abcdef"),
    st.integers(0, 120).map(at),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
streams = st.tuples(st.lists(holders, max_size=6, unique_by=lambda holder: holder.name), st.integers(1, 100)).map(
    lambda found: seen(*found[0], first=found[1])
)
rules = st.builds(Rules, st.none() | st.integers(1, 1500), st.sampled_from(["block", "resync"]))


@given(streams, rules, st.integers(0, 200), st.integers(0, 200), st.booleans())
def test_whatever_is_there_nothing_that_is_needed_goes(
    stream: StreamSeen, rule: Rules, confirmed: int, young: int, short: bool
) -> None:
    judgement = judged(stream, rule, confirmed=confirmed, young=young, memory_is_short=short)
    keep = judgement.keep_from
    assert keep <= stream.last
    assert keep.commit_lsn <= confirmed
    assert short or keep.commit_lsn <= young
    for holder in stream.holders:
        if holder.name in judgement.exempt:
            assert holder.is_passed or (rule.laggard == "resync" and holder.is_sink and holder.has_group)
            assert holder.name not in names(judgement.blocking + judgement.held_by)
        else:
            assert keep <= holder.position


@given(streams, st.integers(0, 200), st.integers(0, 200), st.booleans())
def test_without_a_limit_nobody_blocks_and_all_but_who_was_passed_before_are_waited_for(
    stream: StreamSeen, confirmed: int, young: int, short: bool
) -> None:
    judgement = judged(stream, BLOCK, confirmed=confirmed, young=young, memory_is_short=short)
    assert judgement.blocking == ()
    assert set(judgement.exempt) == {
        holder.name for holder in stream.holders if holder.is_passed and holder.position < stream.first
    }


@given(streams, rules, st.integers(0, 200), st.integers(0, 200), st.booleans())
def test_no_more_is_kept_than_somebody_needs(
    stream: StreamSeen, rule: Rules, confirmed: int, young: int, short: bool
) -> None:
    judgement = judged(stream, rule, confirmed=confirmed, young=young, memory_is_short=short)
    reasons = {stream.last, Position(LSN(confirmed), 0)} | {holder.position for holder in stream.holders}
    assert judgement.keep_from in reasons | (set() if short else {Position(LSN(young), 0)})


# How much is unread


@given(st.lists(st.integers(1, 50), min_size=1, max_size=400), st.data())
def test_a_trail_never_tells_more_than_there_is_and_misses_less_than_two_samples(
    growth: list[int], data: st.DataObject
) -> None:
    trail, end = EntryTrail(), 0
    for entries in growth:
        end += entries
        trail.note(at(end), end)
    reached = data.draw(st.integers(0, end))
    told = trail.behind(at(reached))
    assert told <= end - reached
    later = [added for _, added in trail.samples if added >= reached]
    assert told == end - min(later)
    assert len(trail.samples) <= MOST_SAMPLES


def test_a_trail_forgets_what_the_stream_does_not_hold() -> None:
    trail = EntryTrail((at(lsn), lsn) for lsn in range(1, 11))
    trail.forget_before(at(8))
    assert [added for _, added in trail.samples] == [8, 9, 10]
    assert trail.behind(at(3)) == 2


def test_a_trail_begins_anew_where_the_stream_does() -> None:
    trail = EntryTrail([(at(50), 50)])
    trail.note(at(10), 3)
    assert trail.samples == ((at(10), 3),)


@pytest.mark.parametrize(
    ("position", "known_behind", "expected"),
    [(100, 70, 0), (120, 70, 0), (50, 0, 50), (20, 0, 51), (60, 30, 30), (60, 0, 1), (60, 500, 50)],
)
def test_unread_is_exact_at_the_ends_of_a_stream_and_told_by_the_trail_between(
    position: int, known_behind: int, expected: int
) -> None:
    assert seen(first=50).unread(at(position), known_behind) == expected


@pytest.mark.parametrize(("used", "limit", "short"), [(75, 100, False), (76, 100, True), (1 << 40, 0, False)])
def test_memory_is_short_beyond_three_quarters(used: int, limit: int, short: bool) -> None:
    assert Memory(used, limit).is_short is short


def test_who_is_waited_for_is_told_with_what_to_do() -> None:
    blocking = [("shop:customer", Backlog(sink(10), 9, 70 << 20)), ("shop:order", Backlog(group(1), 9, 65 << 20))]
    reason, remedy = wording.waiting(blocking, 64 << 20)
    assert reason == (
        "waits for sink billing in shop:customer (70 MB unread, transport.max_backlog_bytes is 64 MB),"
        " external group audit in shop:order (65 MB unread, transport.max_backlog_bytes is 64 MB);"
        " the slot keeps the log"
    )
    assert remedy == (
        "Sink billing: start it, `cdc-sink run billing`; if it is gone for good: `cdc forget billing`;"
        " external group audit: have it read on and acknowledge; if it is gone for good: `cdc forget audit`."
    )
