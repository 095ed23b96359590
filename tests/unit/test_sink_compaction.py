"""What a batch comes to."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinks.compaction import Change, Segment, Step, compact
from sinks.entries import Entries, Entry
from tests.resp import WAYS
from transforms import wire
from transforms.errors import MalformedEntry
from transforms.event import Mark

LABELS = {b"customer.v1": "customer.v1", b"order.v1": "order.v1"}


@pytest.fixture(autouse=True, params=WAYS)
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Entries are made so."""
    global made
    made = request.param
    yield
    made = Entries


made: Callable[[list[Entry]], Entries] = Entries


def entries(*all_words: list[bytes]) -> Entries:
    return made([(b"24-%d" % number, words) for number, words in enumerate(all_words, 1)])


def upsert(key: bytes, state: bytes, *more: bytes, type_: bytes = b"customer.v1") -> list[bytes]:
    return [*wire.upsert_words(type_, key, state, b"1", b"7"), *more]


def delete(key: bytes) -> list[bytes]:
    return wire.delete_words(b"customer.v1", key, b"1", b"7")


def truncate() -> list[bytes]:
    return wire.truncate_words(b"customer.v1", b"1", b"7")


def steps(*all_words: list[bytes]) -> list[Step]:
    return compact(entries(*all_words), "billing", LABELS)


def shape(step: Step) -> object:
    """Types with their rounds: deleted keys, and the states of each group."""
    if isinstance(step, Mark):
        return step.name
    rounds = {}
    for label, changes in step.items():
        rounds[label] = [
            ([change.key for change in r.deletes], [[change.state for change in group.changes] for group in r.upserts])
            for r in changes.rounds
        ]
    return rounds


def only(*all_words: list[bytes]) -> object:
    [step] = steps(*all_words)
    return shape(step)


def test_the_last_full_event_of_a_key_stands_for_all_before_it() -> None:
    assert only(upsert(b"1", b"a"), upsert(b"2", b"b"), upsert(b"1", b"c"), delete(b"2")) == {
        "customer.v1": [([b"2"], [[b"c"]])]
    }


def test_partial_upserts_follow_what_is_there_in_rounds_of_their_own() -> None:
    partial = (b"partial", b'["x"]')
    assert only(upsert(b"1", b"a"), upsert(b"1", b"b", *partial), upsert(b"1", b"c", *partial), upsert(b"2", b"d")) == {
        "customer.v1": [([], [[b"a", b"d"]]), ([], [[b"b"]]), ([], [[b"c"]])]
    }


def test_a_full_event_replaces_partial_ones() -> None:
    partial = (b"partial", b'["x"]')
    assert only(upsert(b"1", b"a"), upsert(b"1", b"b", *partial), upsert(b"1", b"c")) == {
        "customer.v1": [([], [[b"c"]])]
    }
    assert only(upsert(b"1", b"b", *partial), delete(b"1")) == {"customer.v1": [([b"1"], [])]}


def test_upserts_with_different_fields_are_kept_apart() -> None:
    [segment] = steps(
        upsert(b"1", b"a"),
        upsert(b"2", b"b", b"quoted", b'["doc"]'),
        upsert(b"3", b"c", b"rev", b"2"),
        upsert(b"4", b"d", b"origin", b"snapshot", b"end", b"1"),
        upsert(b"5", b"e", b"partial", b'["x"]'),
    )
    assert isinstance(segment, dict)
    groups = segment["customer.v1"].rounds[0].upserts
    assert [(group.partial, group.quoted, group.rev, len(group.changes)) for group in groups] == [
        ((), (), 1, 2),
        ((), ("doc",), 1, 1),
        ((), (), 2, 1),
        (("x",), (), 1, 1),
    ]


def test_a_truncate_drops_what_came_before_it_of_its_type() -> None:
    [segment] = steps(upsert(b"1", b"a"), upsert(b"1", b"o", type_=b"order.v1"), truncate(), upsert(b"2", b"b"))
    assert isinstance(segment, dict)
    assert segment["customer.v1"].truncate
    assert not segment["order.v1"].truncate
    assert shape(segment) == {"customer.v1": [([], [[b"b"]])], "order.v1": [([], [[b"o"]])]}


def test_a_truncate_alone_is_a_change() -> None:
    [segment] = steps(truncate())
    assert isinstance(segment, dict)
    assert segment["customer.v1"].truncate
    assert segment["customer.v1"].rounds == []


def test_marks_stand_between_the_rows_around_them() -> None:
    begin = wire.mark_words("run-begin", {"run": "r", "event": "customer.v1"}, b"1")
    unmapped = wire.mark_words("run-end", {"run": "r", "event": "other.v1"}, b"1")
    foreign = wire.mark_words("run-end", {"run": "r", "event": "customer.v1"}, b"1", "shipping")
    found = steps(upsert(b"1", b"a"), begin, upsert(b"1", b"b"), unmapped, foreign, upsert(b"2", b"c"))
    assert [shape(step) for step in found] == [
        {"customer.v1": [([], [[b"a"]])]},
        "run-begin",
        {"customer.v1": [([], [[b"b", b"c"]])]},
    ]


def test_other_types_and_entries_for_other_sinks_are_left_out() -> None:
    assert steps(upsert(b"1", b"a", type_=b"other.v1"), upsert(b"1", b"a", b"to", b"shipping")) == []
    assert only(upsert(b"1", b"a", b"to", b"billing")) == {"customer.v1": [([], [[b"a"]])]}


def test_fields_that_are_not_known_are_ignored() -> None:
    assert only(upsert(b"1", b"a", b"later", b"x", b"end", b"1")) == {"customer.v1": [([], [[b"a"]])]}


def test_what_is_not_of_the_wire_format_is_refused() -> None:
    with pytest.raises(MalformedEntry):
        steps([b"op", b"explode", b"type", b"customer.v1"])


def apply(rows: dict[bytes, bytes], segment: Segment) -> None:
    """A replica in memory: a partial upsert appends to the state that is there."""
    for changes in segment.values():
        if changes.truncate:
            rows.clear()
        for round_ in changes.rounds:
            keys = [change.key for change in round_.deletes]
            keys += [change.key for group in round_.upserts for change in group.changes]
            assert len(keys) == len(set(keys)), "a key comes once in a round"
            for change in round_.deletes:
                rows.pop(change.key, None)
            for group in round_.upserts:
                for change in group.changes:
                    write(rows, change)


def write(rows: dict[bytes, bytes], change: Change) -> None:
    assert change.state is not None
    if not change.partial:
        rows[change.key] = change.state
    elif change.key in rows:
        rows[change.key] += change.state


KEYS = st.sampled_from([b"1", b"2", b"3"])
EVENTS = st.one_of(
    st.tuples(st.just("upsert"), KEYS),
    st.tuples(st.just("own"), KEYS),
    st.tuples(st.just("foreign"), KEYS),
    st.tuples(st.just("partial"), KEYS),
    st.tuples(st.just("delete"), KEYS),
    st.tuples(st.just("truncate"), KEYS),
)


@given(st.lists(EVENTS, max_size=30))
def test_a_compacted_batch_does_what_its_entries_do_one_by_one(events: list[tuple[str, bytes]]) -> None:
    """To a table that takes all of them, and to one that takes no rows of a snapshot for this sink alone."""
    more = {"partial": [b"partial", b'["x"]'], "own": [b"to", b"billing"], "foreign": [b"to", b"shipping"]}

    def made(kind: str, key: bytes, state: bytes) -> list[bytes]:
        if kind == "truncate":
            return truncate()
        return delete(key) if kind == "delete" else upsert(key, state, *more.get(kind, []))

    def both(steps_: list[Step], rows: dict[bytes, bytes], others: dict[bytes, bytes]) -> None:
        for step in steps_:
            assert isinstance(step, dict)
            assert len({changes.own for changes in step.values()}) == 1
            apply(rows, step)
            if not any(changes.own for changes in step.values()):
                apply(others, step)

    batch = entries(*(made(kind, key, b"<%d>" % number) for number, (kind, key) in enumerate(events)))
    at_once: tuple[dict[bytes, bytes], dict[bytes, bytes]] = {b"1": b"old"}, {b"1": b"old"}
    one_by_one = dict(at_once[0]), dict(at_once[1])
    both(compact(batch, "billing", LABELS), *at_once)
    for at in range(len(batch)):
        both(compact(batch[at : at + 1], "billing", LABELS), *one_by_one)
    assert at_once == one_by_one


def test_rows_for_this_sink_alone_stand_between_the_others() -> None:
    own = (b"origin", b"snapshot", b"to", b"billing")
    found = steps(upsert(b"1", b"a"), upsert(b"2", b"b", *own), upsert(b"1", b"c", *own), upsert(b"1", b"d"))
    assert [(shape(step), isinstance(step, dict) and step["customer.v1"].own) for step in found] == [
        ({"customer.v1": [([], [[b"a"]])]}, False),
        ({"customer.v1": [([], [[b"b", b"c"]])]}, True),
        ({"customer.v1": [([], [[b"d"]])]}, False),
    ]


def test_an_entry_with_fewer_fields_than_ours_is_read_all_the_same() -> None:
    bare = [b"op", b"upsert", b"type", b"customer.v1", b"key", b"1", b"state", b"a"]
    assert only(bare) == {"customer.v1": [([], [[b"a"]])]}
