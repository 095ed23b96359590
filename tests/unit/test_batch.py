"""Batches: entries of all streams, with every stream's newest entry held back until its place is known."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cdc import append
from cdc.batch import Batch, BatchBuilder
from tests import append_model
from transforms.position import LSN


def builder(*, limit_count: int = 100, limit_bytes: int = 10_000) -> BatchBuilder:
    return BatchBuilder(LSN(10), limit_count, limit_bytes)


def add(builder: BatchBuilder, stream: str, *ids: bytes) -> list[bool]:
    """Add an entry for each id; returns whether the batch was full then."""
    return [builder.add(stream, append.whole_item(b"shop:s", entry_id, [b"op", b"upsert"])) for entry_id in ids]


def ids(batch: Batch) -> dict[str, list[str]]:
    """Ids by stream; the last entry of a transaction is marked with a full stop."""
    return {
        stream: [id.decode() + "." * (b"end" in words) for id, words in append_model.entries(taken)]
        for stream, taken in batch.streams.items()
    }


def test_an_item_is_the_entry_with_all_its_words() -> None:
    one = builder()
    template = append.Template(b"100%:customer", b"customer.v1")
    tail = append.tail(b"1700000000000000", b"7")
    one.add("customer", template.upsert % (3, b"1-1", 8, b'{"id":1}', 2, b"{}", tail))
    one.add("customer", template.delete % (3, b"1-2", 8, b'{"id":1}', tail))
    one.end_transaction()
    taken = one.take().streams["customer"]
    assert append.split(taken.items[0])[:2] == [b"XADD", b"100%:customer"]
    key, last = [b"type", b"customer.v1", b"key", b'{"id":1}'], [b"ts", b"1700000000000000", b"tx", b"7"]
    assert append_model.entries(taken) == [
        (b"1-1", [b"op", b"upsert", *key, b"state", b"{}", *last]),
        (b"1-2", [b"op", b"delete", *key, *last, b"end", b"1"]),
    ]


def test_the_last_entry_of_each_stream_ends_the_transaction() -> None:
    one = builder()
    add(one, "customer", b"1-1", b"1-2")
    add(one, "order", b"1-3")
    add(one, "customer", b"1-4")
    one.end_transaction()
    assert ids(one.take()) == {"customer": ["1-1", "1-2", "1-4."], "order": ["1-3."]}


def test_every_transaction_has_an_end_of_its_own() -> None:
    one = builder()
    for number in (b"1", b"2"):
        add(one, "customer", number + b"-1", number + b"-2")
        one.end_transaction()
    assert ids(one.take()) == {"customer": ["1-1", "1-2.", "2-1", "2-2."]}


def test_the_newest_entry_of_an_open_transaction_is_held_back() -> None:
    one = builder()
    add(one, "customer", b"1-1", b"1-2")
    assert ids(one.take()) == {"customer": ["1-1"]}
    add(one, "customer", b"1-3")
    assert ids(one.take()) == {"customer": ["1-2"]}
    one.end_transaction()
    assert ids(one.take()) == {"customer": ["1-3."]}


def test_the_held_back_entry_gets_its_end_though_nothing_follows() -> None:
    one = builder()
    add(one, "customer", b"1-1")
    assert ids(one.take()) == {}
    assert ids(one.take()) == {}
    one.end_transaction()
    assert ids(one.take()) == {"customer": ["1-1."]}


def test_entries_of_ended_transactions_are_not_held_back() -> None:
    one = builder()
    add(one, "customer", b"1-1")
    one.end_transaction()
    add(one, "order", b"2-1")
    assert ids(one.take()) == {"customer": ["1-1."]}


def test_nothing_is_published_twice() -> None:
    one = builder()
    add(one, "customer", b"1-1")
    one.end_transaction()
    one.take()
    one.end_transaction()
    assert one.take() == Batch({}, LSN(10), {})


def test_a_batch_is_full_by_entries_or_by_bytes() -> None:
    for one in (builder(limit_count=2), builder(limit_bytes=90)):
        assert add(one, "customer", b"1-1", b"1-2") == [False, True]


def test_what_is_held_back_counts_towards_the_next_batch() -> None:
    one = builder(limit_count=2)
    add(one, "customer", b"1-1", b"1-2")
    one.take()
    assert (one.count, one.bytes) == (1, 0)
    assert add(one, "customer", b"1-3") == [True]


def test_a_batch_tells_how_many_entries_it_holds_over_all_streams() -> None:
    one = builder()
    add(one, "customer", b"1-1", b"1-2")
    add(one, "order", b"1-3")
    one.end_transaction()
    assert one.take().count == 3


def test_a_batch_stands_at_the_position_behind_all_its_transactions() -> None:
    one = builder()
    one.end = LSN(20)
    assert one.worth_taking
    batch = one.take()
    assert (batch.end, batch.count, one.taken_end) == (20, 0, 20)
    assert not one.worth_taking


def test_what_is_held_back_alone_is_no_content() -> None:
    one = builder()
    add(one, "customer", b"1-1")
    held = one.has_content
    add(one, "customer", b"1-2")
    assert (held, one.has_content) == (False, True)


def test_a_note_is_stored_with_the_batch_that_holds_all_of_its_transaction() -> None:
    one = builder()
    add(one, "customer", b"1-1", b"1-2")
    one.note("run", "state")
    assert one.take().notes == {}
    one.end_transaction()
    assert one.has_content
    assert one.take().notes == {"run": "state"}
    assert one.take().notes == {}


def test_the_newest_note_of_a_run_stands() -> None:
    one = builder()
    for state in ("running", "done"):
        one.note("run", state)
        one.end_transaction()
    assert one.take().notes == {"run": "done"}


transactions = st.lists(st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), max_size=5), max_size=6)


@given(transactions)
def test_however_batches_are_cut_each_stream_gets_every_entry_once_in_order_and_its_ends(
    history: list[list[tuple[str, bool]]],
) -> None:
    one, taken = builder(), list[Batch]()
    expected: dict[str, list[str]] = {}
    for number, transaction in enumerate(history, 1):
        last = {stream: ordinal for ordinal, (stream, _) in enumerate(transaction)}
        for ordinal, (stream, cut) in enumerate(transaction):
            add(one, stream, b"%d-%d" % (number, ordinal))
            expected.setdefault(stream, []).append(f"{number}-{ordinal}" + "." * (last[stream] == ordinal))
            if cut:
                taken.append(one.take())
        one.end_transaction()
    taken.append(one.take())
    published: dict[str, list[str]] = {}
    for batch in taken:
        for stream, found in ids(batch).items():
            published.setdefault(stream, []).extend(found)
    assert published == expected
    assert one.count == 0
