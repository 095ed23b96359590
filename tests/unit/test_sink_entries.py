"""Entries as they are kept by `_replies.c`, held against what Python makes of the same."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinks.compaction import Change
from sinks.entries import COMPILED, Entries, Entry, ends_transaction
from tests.resp import answer, array, bulk, compiled
from transforms import wire

pytestmark = pytest.mark.skipif(COMPILED is None, reason="entries are lists here")

WORDS = st.sampled_from(
    [b"op", b"upsert", b"type", b"customer.v1", b"key", b"state", b"end", b"origin", b"rev", b"1", b"\r\n$1\r\n", b""]
)
KEYS = st.sampled_from([b"1", b"2", b"3"])
TAILS = st.lists(
    st.tuples(st.sampled_from([b"end", b"origin", b"rev"]), st.sampled_from([b"1", b"0", b"end"])), max_size=3
).map(lambda pairs: [word for pair in pairs for word in pair])
IDS = st.from_regex(rb"[0-9]{1,3}-[0-9]{6,19}", fullmatch=True) | st.sampled_from([b"", b"-", b"1-", b"-1000000", b"1"])
ENTRIES = st.lists(
    st.tuples(
        IDS,
        st.builds(lambda key, tail: [*wire.upsert_words(b"customer.v1", key, b"s", b"1", b"7"), *tail], KEYS, TAILS)
        | st.lists(st.tuples(WORDS, WORDS), max_size=9).map(lambda pairs: [word for pair in pairs for word in pair]),
    ),
    max_size=8,
)
REST = ((), (), 1)


def replies(*, entries_at: int = 0, expected: int = 1) -> Any:
    return COMPILED.Replies(COMPILED.Entries, expected, entries_at)


def in_pieces(data: bytes, size: int) -> Iterable[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


@given(ENTRIES, ENTRIES, st.data())
def test_they_are_what_a_list_of_them_is(some: list[Entry], others: list[Entry], data: st.DataObject) -> None:
    ours, listed = compiled(some), Entries(some)
    start, stop = data.draw(st.integers(-3, 9)), data.draw(st.none() | st.integers(-3, 9))
    ours.extend(compiled(others)[start:stop])
    listed.extend(Entries(others)[start:stop])
    for one, other in ((ours, listed), (ours[start:stop], listed[start:stop]), (ours[1:][:2], listed[1:][:2])):
        assert (len(one), list(one)) == (len(other), list(other))
        assert (one.odd_id(), one.ended()) == (other.odd_id(), other.ended())
        assert (one.size() > 0) == bool(other)
    for at in range(-len(listed), len(listed)):
        assert ours[at] == listed[at]
    for at in (len(listed), -len(listed) - 1):
        with pytest.raises(IndexError):
            ours[at]


@given(ENTRIES, st.sampled_from([{}, {b"1": [Change(b"24-1", b"1", b"")]}]))
def test_any_words_are_plain_to_both_or_to_none(some: list[Entry], behind: dict[bytes, list[Change]]) -> None:
    kept = [{b"customer.v1": ({b"0": Change(b"24-0", b"0", None)}, dict(behind))} for _ in range(2)]
    for first in range(len(some) + 1):
        ends = [
            made.take_plain(first, of, Change, REST)
            for made, of in zip((Entries(some), compiled(some)), kept, strict=True)
        ]
        assert ends[0] == ends[1]
        assert kept[0] == kept[1]
        assert all(type(change) is Change for change in kept[1][b"customer.v1"][0].values())


def test_a_change_outlives_the_entries_that_it_is_of() -> None:
    made, kept = compiled([(b"24-1", wire.upsert_words(b"a.v1", b"1", b"s" * 500, b"1", b"7"))]), ({}, {})  # type: ignore[var-annotated]
    part = made[0:1]
    del made
    assert part.take_plain(0, {b"a.v1": kept}, Change, REST) == 1
    del part
    assert kept == ({b"1": Change(b"24-1", b"1", b"s" * 500)}, {})


USUAL = [
    (array([bulk(b"a"), b"$-1\r\n", b":-5\r\n"]), [b"a", None, -5]),
    (b":1\r\n", 1),
    (b"*-1\r\n", None),
    (b"_\r\n", None),
    (b"%1\r\n" + bulk(b"first-entry") + array([bulk(b"1-1"), array([])]), {b"first-entry": [b"1-1", []]}),
    (b"-ERR no such key\r\n", "ERR no such key"),
]


@given(ENTRIES, st.integers(1, 70), st.lists(st.sampled_from(USUAL), max_size=3), st.integers(0, 3), st.booleans())
def test_answers_may_arrive_in_any_pieces(
    some: list[Entry], size: int, others: list[tuple[bytes, object]], place: int, is_pushed: bool
) -> None:
    at = min(place, len(others))
    parts = [*(sent for sent, _ in others[:at]), answer(some), *(sent for sent, _ in others[at:])]
    if is_pushed:  # which answers nothing
        parts.insert(at, b">2\r\n" + bulk(b"moving") + b":1\r\n")
    made, data = replies(entries_at=at, expected=len(others) + 1), b"".join(parts)
    assert [made.feed(piece) for piece in in_pieces(data, size)] == [False] * ((len(data) - 1) // size) + [True]
    found = made.answers(str)
    assert [value for number, value in enumerate(found) if number != at] == [value for _, value in others]
    assert list(found[at]) == [(entry_id, words) for entry_id, words in some]


@pytest.mark.parametrize(
    "sent",
    [
        b"*-1\r\n",
        b"_\r\n",
        array([bulk(b"no entry")]),
        array([array([bulk(b"1-1")])]),
        array([array([bulk(b"1-1"), b"$-1\r\n"])]),
        b"!5\r\nERR x\r\n",
        b"#t\r\n",
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_what_is_not_usual_is_left_to_redis_py(sent: bytes, size: int) -> None:
    made = replies()
    fed = []
    for piece in in_pieces(sent, size):
        fed.append(made.feed(piece))
        if fed[-1]:
            break
    assert fed == [False] * (len(fed) - 1) + [True]
    assert made.answers(str) is None


@pytest.mark.parametrize("behind", [b"+m", b"+more\r\n", b">1\r\n", b":"])
def test_what_arrives_behind_the_answers_is_left_to_redis_py_too(behind: bytes) -> None:
    made = replies()
    assert made.feed(answer([]) + behind)
    assert made.answers(str) is None


def test_an_error_may_be_the_answer_to_any_command() -> None:
    made = replies(entries_at=0, expected=2)
    assert made.feed(b"-NOPERM this user\xff has no permissions\r\n-LOADING Redis is loading\r\n>1\r\n:1\r\n")
    assert made.answers(str) == ["NOPERM this user\ufffd has no permissions", "LOADING Redis is loading"]
    with pytest.raises(ZeroDivisionError):
        made.answers(lambda text: 1 / 0)
    with pytest.raises(ValueError, match="all answers are there"):
        made.feed(b"more")


@pytest.mark.parametrize(
    "sent",
    [
        b"%4611686018427387904\r\n_\r\n",
        b"%9223372036854775807\r\n_\r\n",
        b"*1\r\n*9223372036854775807\r\n_\r\n",
        b"$9223372036854775807\r\n",
    ],
)
def test_sizes_that_nothing_has_are_waited_for_or_refused(sent: bytes) -> None:
    made = replies(entries_at=1, expected=2)
    try:
        assert not made.feed(sent)
    except ValueError:
        return
    assert made.answers(str) is None


@pytest.mark.parametrize("entries_at", [0, 1])
def test_what_arrives_in_small_pieces_is_read_once(entries_at: int) -> None:
    """A million words in pieces of a packet's size: read again with each of them this takes 20 seconds, else one."""
    entry = (b"1-1000000", [b"x"] * 1_000_000)
    made, sent = replies(entries_at=entries_at, expected=1), answer([entry])
    began = time.process_time()
    fed = [made.feed(piece) for piece in in_pieces(sent, 1448)]
    assert fed[-1]
    assert time.process_time() - began < 5
    if entries_at == 0:
        assert made.answers(str)[0][0] == entry


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"$x\r\n",
        b"$99999999999999999999999\r\n",
        b"*1\r\n*2\r\n$3\r\n1-1xx*0\r\n",
        array([array([bulk(b"1-1"), array([])]), bulk(b"no entry")]),
        b":1\rx",
        b":\r\n",
        b"$\r\n",
        b"$3\r\nabcd\r\n",
    ],
)
@pytest.mark.parametrize("entries_at", [0, 1])
def test_what_is_not_redis_protocol_is_told(sent: bytes, entries_at: int) -> None:
    made = replies(entries_at=entries_at, expected=2)
    if entries_at and sent.startswith(b"*2\r\n*2"):
        sent = b"*1\r\n\n"  # which is an answer like any other there
    with pytest.raises(ValueError, match="not Redis' protocol"):
        made.feed(sent + b"\r\n" * 10)


def test_what_is_given_wrongly_is_refused() -> None:
    made, answered, holder = compiled([(b"24-1", [b"op", b"mark"])]), replies(), compiled([])
    assert answered.feed(answer([(b"24-1", [b"op", b"mark"])]))
    [own] = answered.answers(str)
    holder.extend(own)
    for call in (
        lambda: made.extend([(b"24-2", [])]),
        lambda: made.extend(made),
        lambda: made.extend(made[:1]),
        lambda: made[:1].extend(compiled([])),
        lambda: own.extend(holder),
        lambda: made["1"],  # type: ignore[call-overload]
        lambda: COMPILED.Replies(1, 1, 0),
        lambda: COMPILED.Replies(list, 1, 0),
    ):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(ValueError):
        made[::2]
    with pytest.raises(ValueError):
        made.take_plain(-1, {}, Change, REST)
    with pytest.raises(TypeError):
        replies().feed("text")


def test_the_end_is_found_among_fields_that_are_not_known() -> None:
    assert ends_transaction([b"op", b"mark", b"end", b"1", b"later", b"x"])
    assert not ends_transaction([b"op", b"end", b"1", b"x"])
    assert not ends_transaction([b"op", b"mark", b"end", b"0"])
