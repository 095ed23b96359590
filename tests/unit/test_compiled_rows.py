"""The compiled encoder and bytes that nobody promised: it writes what the explicit one writes, or leaves it to that."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from itertools import starmap
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.snapshot.visibility import Snapshot
from tests import builders
from tests.builders import INTEGER, JSON, column
from tests.unit.translation_harness import CUSTOMERS, LEAVES, ORDERS, PREFIX, UNMAPPED, Log, columns, route
from transforms import accelerator
from transforms.encoder import COMPILED, Row, RowEncoder, compiled_encoder, shaped_encoder
from transforms.errors import StatecastError
from transforms.row import EncodedRow
from transforms.tuple_data import UNCHANGED, MalformedMessage

needs_compiled = pytest.mark.skipif(COMPILED is None, reason="rows are encoded in Python here")

OIDS = [16, 17, 20, 25, 114, 701, 1114, 1184, 1700, 3802]  # one of each form
RELATION = [*(column(f"c{oid}", oid) for oid in OIDS), column("array", 1007, element=23)]
NAMES = [each.name for each in RELATION]
TEXTS = [
    *(b"t", b"f", b"1", b"-7.5e+10", b"NaN", b"\\x00ff", b"2000-01-01 00:00:00.5", b"2000-01-01 00:00:00+00", b"{1,2}"),
    *(b"infinity", b"44-03-15 BC", b"null", b"{}", b'"a"', b'"\\/"', b'"\\u0000"', b" {}", b"{} ", b'"\\', b"{,", b""),
    *(b"\xc3\xa9", b"\xed\xa0\x80", b"\xf5", b"ends in \xe2\x82", b"\x7f\x1f\x00", "\U0001f600".encode()),
    b"plain text that is longer than eight",
]
PLAIN_ROW = [
    *(b"t", b"\\x00ff", b"20", b'any "text" \xc3\xa9', b"[1]", b"-7.5e+10", b"2000-01-01 00:00:00.5"),
    *(b"2000-01-01 00:00:00+00", b"10.50", b"{}", b"{1,NULL}"),
]
values = st.none() | st.just(UNCHANGED) | st.sampled_from(TEXTS) | st.binary(max_size=20)
rows = st.dictionaries(st.integers(0, len(NAMES) - 1), values, max_size=3).map(
    lambda odd: [odd.get(place, value) for place, value in enumerate(PLAIN_ROW)]
)


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Cut, lengthened, or with bytes that are others."""
    data = bytearray(draw(whole))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        data[at : at + draw(st.integers(0, 2))] = draw(
            st.binary(max_size=3) | st.sampled_from([b"\xff" * 4, b"t\0\0\0"])
        )
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


def outcome(call: Callable[..., Any], *arguments: object) -> object:
    """What it returns, a row as a Row; or its error (bytes may be malformed in two ways: either may be told)."""
    try:
        result = call(*arguments)
    except MalformedMessage:
        return MalformedMessage
    except StatecastError as error:
        return type(error), str(error)
    return Row(*result) if isinstance(result[-1], bytes) else result


def both(listed: Sequence[str] = NAMES, key: Sequence[str] = ("c20",)) -> tuple[RowEncoder, RowEncoder]:
    return compiled_encoder(RELATION, listed, key), shaped_encoder(RELATION, listed, key, seen_before=1000)


def test_it_is_built_where_there_is_a_compiler() -> None:
    if accelerator.WANTED and shutil.which("cc"):
        assert COMPILED is not None, "run `make setup`: the C files of transforms/ and sinks/ were not compiled"


@needs_compiled
@pytest.mark.parametrize("place", range(len(NAMES)), ids=NAMES)
def test_each_odd_value_becomes_the_same_in_each_column(place: int) -> None:
    compiled, explicit = both()
    for text in (*TEXTS, None, UNCHANGED):
        data = builders.tuple_data(*PLAIN_ROW[:place], text, *PLAIN_ROW[place + 1 :])
        assert outcome(compiled.row, data, 0, 0) == outcome(explicit.row, data, 0, 0)


@needs_compiled
@given(rows, st.lists(st.sampled_from(NAMES), unique=True), st.lists(st.sampled_from(NAMES), min_size=1, max_size=2))
def test_any_values_become_the_same_row(row: list[Any], listed: list[str], key: list[str]) -> None:
    compiled, explicit = both(listed, key)
    data = builders.tuple_data(*row)
    assert outcome(compiled.row, data, 0, 0) == outcome(explicit.row, data, 0, 0)
    assert outcome(compiled.key, data + b"N", 0) == outcome(explicit.key, data + b"N", 0)


@needs_compiled
@given(damaged(rows.map(lambda row: builders.tuple_data(*row))) | st.binary(max_size=60), st.integers(0, 70))
def test_any_bytes_become_the_same_row_or_the_same_error(data: bytes, at: int) -> None:
    compiled, explicit = both()
    for place in (0, at):
        assert outcome(compiled.row, data, place, 0) == outcome(explicit.row, data, place, 0)
        assert outcome(compiled.key, data, place) == outcome(explicit.key, data, place)


@needs_compiled
def test_a_plain_row_is_compiled_work_and_with_a_byte_less_or_more_it_is_refused() -> None:
    compiled, explicit = both()
    data = builders.tuple_data(*PLAIN_ROW)
    line = b"\t".join(value.replace(b"\\", b"\\\\") for value in PLAIN_ROW) + b"\n"
    assert (
        type(compiled.row(data, 0, 0)) is type(compiled.lines([line])[0]) is tuple
    )  # a Row is made by the explicit one
    assert Row(*compiled.row(data, 0, 0)) == Row(*compiled.lines([line])[0]) == explicit.row(data, 0, 0)
    for size in range(len(data)):
        with pytest.raises(MalformedMessage):
            compiled.row(data[:size], 0, 0)
        with pytest.raises(MalformedMessage):
            compiled.key(data[:size], 0)
    with pytest.raises(MalformedMessage):
        compiled.row(data + b"n", 0, 0)


def first_line(encoder: RowEncoder) -> Callable[[bytes], object]:
    return lambda text: encoder.lines([text])[0]


@needs_compiled
@given(st.lists(st.sampled_from([*TEXTS, b"\\N", b"\\\\N", b"\\q", b"a\\", b"\\t\\\\"]), min_size=10, max_size=12))
def test_any_line_of_copys_text_becomes_the_same_row(texts: list[bytes]) -> None:
    compiled, explicit = both()
    line = b"\t".join(texts) + b"\n"
    assert outcome(first_line(compiled), line) == outcome(first_line(explicit), line)


@needs_compiled
@given(st.lists(st.sampled_from([b"1\tplain\n", b"2\tb\\tc\n", b'3\t{"a":\x01}\n', b"4\t\\N\n"]), max_size=12))
def test_lines_that_are_left_to_python_keep_their_place_among_others(texts: list[bytes]) -> None:
    relation = [column("id", INTEGER), column("doc", JSON)]
    compiled, shaped = (one(relation, ["id", "doc"], ["id"]) for one in (compiled_encoder, shaped_encoder))
    assert list(starmap(Row, compiled.lines(texts))) == list(starmap(Row, shaped.lines(texts)))


@needs_compiled
@given(st.binary(max_size=40))
def test_any_text_is_escaped_alike(text: bytes) -> None:
    compiled, explicit = (one([column("t")], ["t"], ["t"]) for one in (compiled_encoder, shaped_encoder))
    data = builders.tuple_data(text)
    assert outcome(compiled.row, data, 0, 0) == outcome(explicit.row, data, 0, 0)


@needs_compiled
def test_every_character_is_escaped_alike() -> None:
    compiled, explicit = (one([column("t")], ["t"], ["t"]) for one in (compiled_encoder, shaped_encoder))
    for first in range(256):
        for second in (b"", b"\x7f", b"\x80", b"\x8f", b"\x90", b"\x9f", b"\xa0", b"\xbf", b"\xc0"):
            for third in (b"", b"\x7f", b"\x80", b"\xbf", b"\xc0"):
                data = builders.tuple_data(b"12345" + bytes([first]) + second + third + third)
                assert outcome(compiled.row, data, 0, 0) == outcome(explicit.row, data, 0, 0)


@needs_compiled
def test_a_relation_of_more_columns_than_a_table_can_have_is_refused() -> None:
    with pytest.raises(ValueError):
        compiled_encoder([column(f"c{number}") for number in range(2000)], [], ["c0"])


# Runs of frames

ROW = st.tuples(
    st.sampled_from([b"1", b"22", b"333", b"-4", b"1 odd number"]),
    st.sampled_from([b"Ada", None, b"B\xc3\xa9la", b'"\n"']),
    st.sampled_from([b"", None]),
)
PLAIN = st.builds(
    lambda relation, row: builders.insert(relation, *row),
    st.sampled_from([CUSTOMERS] * 7 + [ORDERS]),
    ROW,
)
WRONG = st.sampled_from(
    [
        builders.insert(CUSTOMERS, b"1", b"\xff", None),
        builders.insert(CUSTOMERS, b"1", b"Ada", None).replace(b"N", b"K", 1),
        builders.insert(CUSTOMERS, b"1", b"Ada", None) + b"n",
        builders.insert(CUSTOMERS, None, b"Ada", None),
        builders.insert(CUSTOMERS, b"1", b"Ada"),
        builders.insert(LEAVES, b"1", b"Ada", None),
    ]
)
OTHER = st.one_of(
    st.builds(lambda row: builders.update(CUSTOMERS, *row), ROW),
    st.builds(lambda row: builders.update(CUSTOMERS, *row, key=[b"1", None, None]), ROW),
    st.builds(lambda row: builders.update(CUSTOMERS, *row, old=[b"1", b"Ada", b"x"]), ROW),
    st.builds(lambda name: builders.update(CUSTOMERS, b"1", name, UNCHANGED), st.sampled_from([b"a", None])),
    st.builds(lambda row: builders.delete(CUSTOMERS, *row), ROW),
    st.builds(lambda row: builders.insert(UNMAPPED, *row), ROW),
    st.just(builders.truncate(CUSTOMERS)),
    st.just(builders.message("any", b"")),
    st.just(builders.relation(CUSTOMERS, "table", columns())),
)
MESSAGES = st.lists(st.lists(PLAIN, max_size=12) | st.lists(OTHER, max_size=2), max_size=5).map(
    lambda runs: [one for run in runs for one in run]
)
ROUTES = {CUSTOMERS: [route("customer.v1")], ORDERS: [route("order.v1", rev=2), route("buyer.v1")], UNMAPPED: []}


def told(log: Log, feed: Callable[[], object], watched: str | None) -> object:
    """All that came of it: entries, the error if any, what the snapshot's windows learnt."""
    window = log.deliveries.open(watched) if watched else None
    error = None
    try:
        feed()
    except StatecastError as raised:
        error = type(raised)
    log.take_batch()
    batches = [(batch.end, batch.streams, batch.notes) for batch in log.batches]
    learnt = window and window.judge(Snapshot(1, 1, frozenset()))
    return batches, log.builder.count, error, learnt, log.deliveries.waits_for, log.translator.latest_end


@needs_compiled
@given(
    st.lists(MESSAGES, min_size=1, max_size=3),
    st.sampled_from([1, 3, 10]),
    st.sampled_from([1, 200, 1 << 20]),
    st.sampled_from([None, None, "customer.v1", "order.v1"]),
    st.data(),
)
def test_a_run_of_frames_gives_what_its_frames_give_one_by_one(
    transactions: list[list[bytes]], most: int, most_bytes: int, watched: str | None, data: st.DataObject
) -> None:
    frames: list[bytes] = []
    for number, messages in enumerate(transactions, 1):
        frames += builders.transaction(100 * number, *messages, xid=700 + number)
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(frames) - 1))
        wrong = data.draw(WRONG | damaged(st.just(frames[at][25:])))
        frames[at : at + data.draw(st.integers(0, 1))] = [builders.xlog_data(wrong)]
    at_once, one_by_one = (Log(ROUTES, limit_count=most, limit_bytes=most_bytes) for _ in range(2))
    run, single = partial(at_once.feed_runs, frames), partial(one_by_one.feed, frames)
    assert told(at_once, run, watched) == told(one_by_one, single, watched)


@needs_compiled
def test_plain_inserts_are_taken_together_until_the_batch_is_full() -> None:
    log = Log(limit_count=3)
    frames = [*builders.transaction(50, *(builders.insert(CUSTOMERS, b"%d" % each, None, None) for each in range(5)))]
    feed = log.translator.feed_run
    assert [feed(frames, first) for first in (0, 1, 4, 6)] == [1, 3, 2, 1]


@needs_compiled
def test_each_insert_of_a_long_run_has_its_own_id_and_row() -> None:
    log = Log()
    log.feed_runs(
        [*builders.transaction(50, *(builders.insert(CUSTOMERS, b"%d" % n, None, None) for n in range(1, 13)))]
    )
    assert log.take() == [f"customer 50-{n}000000 upsert {n}{' end' * (n == 12)}" for n in range(1, 13)]


@needs_compiled
def test_whole_transactions_are_taken_together_unless_they_fill_the_batch() -> None:
    log = Log(limit_count=6)
    frames = [
        frame
        for number in range(1, 5)
        for frame in builders.transaction(50 * number, *[builders.insert(CUSTOMERS, b"1", None, None)] * 2, xid=number)
    ]
    feed = log.translator.feed_run
    assert [feed(frames, first) for first in (0, 8, 9)] == [8, 1, 2]
    assert log.translator.hand.commit_lsn == 150
    assert log.deliveries.waits_for == 3
    log.feed_runs(frames[11:])
    assert log.take() == [
        f"customer {50 * n}-{row}000000 upsert 1{' end' * (row == 2)}" for n in range(1, 5) for row in (1, 2)
    ]


@needs_compiled
@pytest.mark.parametrize("at", range(4))
def test_a_transaction_that_is_not_wholly_there_is_taken_frame_by_frame(at: int) -> None:
    log = Log()
    frames = [*builders.transaction(50, *[builders.insert(CUSTOMERS, b"1", None, None)] * 3)]
    log.feed_runs(frames[: at + 1])
    assert log.translator.hand.is_open
    log.feed_runs(frames[at + 1 :])
    assert log.take() == [f"customer 50-{row}000000 upsert 1{' end' * (row == 3)}" for row in (1, 2, 3)]


ENCODED = st.one_of(
    st.tuples(st.binary(max_size=3), st.binary(max_size=300)),
    st.builds(Row, st.binary(max_size=3), st.binary(max_size=3), st.just(()), st.sampled_from([(), ("note",)])),
)


@needs_compiled
@given(st.lists(ENCODED), st.sampled_from([1, 3, 10]), st.sampled_from([1, 200, 1 << 20]), st.integers(0, 2))
def test_rows_that_were_found_give_together_what_they_give_one_by_one(
    rows: list[EncodedRow], most: int, most_bytes: int, before: int
) -> None:
    def publish(log: Log, *parts: list[EncodedRow]) -> None:
        for part in parts:
            log.translator.entries.found(log.routes[CUSTOMERS][0], part, b"snapshot", None)

    told = []
    for parts in ([rows], [[row] for row in rows]):
        log = Log(limit_count=most, limit_bytes=most_bytes)
        log.translator.marks["a-1"] = partial(publish, log, rows[:before], *parts)
        log.feed(builders.transaction(50, builders.message(PREFIX, b'{"token": "a-1"}')))
        log.take_batch()
        told.append([(batch.end, batch.streams) for batch in log.batches])
    assert told[0] == told[1]
    assert sum(stream.count for _, streams in told[0] for stream in streams.values()) == len(rows) + len(rows[:before])


@pytest.mark.parametrize("name", accelerator.INTERFACES)
def test_what_was_built_from_other_sources_is_left_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if (built := accelerator.load(name)) is None:
        pytest.skip("nothing is compiled here")
    monkeypatch.setattr(built, "INTERFACE", 0)
    assert accelerator.load(name) is None
    monkeypatch.delattr(built, "INTERFACE")
    assert accelerator.load(name) is None
