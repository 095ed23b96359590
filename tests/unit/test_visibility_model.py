"""The visibility rule against a model of Postgres: commits are logged in one order and become visible in another.

Hypothesis chooses what happens next; see visibility_model.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NamedTuple, TypedDict, Unpack

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from cdc.snapshot.visibility import Deliveries, Snapshot, Verdict, Window
from tests.unit.visibility_model import CHUNKS, EVENT, KEYS, WRITERS, Do, Judge, Model, WentBack

SEARCH_SEED = 5
"""With which a search takes seconds; with others up to a minute."""


class Step(NamedTuple):
    """What happens next; the rest matters to some."""

    do: Do
    writer: int = 0
    key: bytes = KEYS[0]
    number: int = 1
    chunk: int = 0


class Options(TypedDict, total=False):
    """Of the model."""

    reads_resent_again: bool
    reads_always_again: bool
    tells_others_what_was_found: bool


def run(steps: list[Step], judge: Judge, **options: Unpack[Options]) -> Model:
    model = Model(judge, **options)
    take(steps, model)
    model.finish()
    return model


def take(steps: list[Step], model: Model) -> None:
    actions: dict[Do, Callable[[Step], None]] = {
        "write": lambda step: model.write(step.writer, step.key, exists=step.number > 0),
        "change": lambda step: model.change(step.writer, step.key),
        "move": lambda step: model.move(step.writer, step.key, KEYS[step.number]),
        "truncate": lambda step: model.truncate(step.writer),
        "log": lambda step: model.commit(step.writer),
        "see": lambda step: model.become_visible(step.writer),
        "deliver": lambda _: model.deliver(),
        "drain": lambda _: model.drain(),
        "mark": lambda step: model.mark(step.chunk),
        "read": lambda step: model.read(step.chunk),
        "note": lambda _: model.note_snapshot(),
        "reconnect": lambda step: model.reconnect(step.number),
    }
    for step in steps:
        actions[step.do](step)


def is_wrong(steps: list[Step], judge: Judge, **options: Unpack[Options]) -> bool:
    try:
        model = run(steps, judge, **options)
    except WentBack:
        return True
    return model.existing(model.replica) != model.existing(model.visible)


def visibility_rule(deliveries: Deliveries, window: Window, snapshot: Snapshot) -> Verdict:
    return deliveries.close(EVENT, window, snapshot)


def only_changed_between_the_marks(deliveries: Deliveries, window: Window, snapshot: Snapshot) -> Verdict:
    """The weak rule: drop what changed between the marks, and look at nothing else."""
    during = [touched for touched in window._during.values() if touched is not None]
    changed = frozenset().union(*(touched.whole for touched in during))
    emptied = any(touched.all_keys for touched in during)
    deliveries.close(EVENT, window, snapshot)
    return Verdict((), changed, emptied, frozenset())


def without_discarding(deliveries: Deliveries, window: Window, snapshot: Snapshot) -> Verdict:
    return deliveries.close(EVENT, window, snapshot)._replace(unseen=())


def without_dropping(deliveries: Deliveries, window: Window, snapshot: Snapshot) -> Verdict:
    return deliveries.close(EVENT, window, snapshot)._replace(dropped=frozenset(), dropped_all=False)


def without_those_in_progress_at_connect(deliveries: Deliveries, window: Window, snapshot: Snapshot) -> Verdict:
    window._possibly_before.clear()
    return deliveries.close(EVENT, window, snapshot)


def with_what_newer_snapshots_see_forgotten(deliveries: Deliveries, window: Window, snapshot: Snapshot) -> Verdict:
    """Forgets under a window, though its chunk may have been read before."""
    window._before &= deliveries._unseen
    return deliveries.close(EVENT, window, snapshot)


def without_reading_partial_rows_again(deliveries: Deliveries, window: Window, snapshot: Snapshot) -> Verdict:
    return deliveries.close(EVENT, window, snapshot)._replace(incomplete=frozenset())


often: list[Do] = ["write", "change", "change", "log", "see", "drain", "mark", "read"]
seldom: list[Do] = ["move", "truncate", "deliver", "note", "reconnect"]
histories = st.lists(
    st.builds(
        Step,
        st.sampled_from([*often, *often, *seldom]),
        st.integers(0, WRITERS - 1),
        st.sampled_from(KEYS),
        st.integers(0, 2),
        st.integers(0, CHUNKS),
    ),
    max_size=60,
)

LOGGED_BUT_NOT_VISIBLE = [Step("write"), Step("log"), Step("deliver"), Step("mark"), Step("deliver"), Step("read")]
DELIVERED_BY_AN_EARLIER_CONNECTION = [
    *LOGGED_BUT_NOT_VISIBLE[:3],
    Step("reconnect", number=0),
    *LOGGED_BUT_NOT_VISIBLE[3:],
]


COMMITTED = [Step("log"), Step("see"), Step("drain")]
MOVED_AND_CHANGED_AGAIN_BEFORE_IT_WAS_READ = [
    *[Step("mark"), Step("drain"), Step("read"), Step("mark"), Step("drain")],
    *[Step("write", key=KEYS[1], number=0), *COMMITTED, Step("move", key=KEYS[0], number=1), *COMMITTED],
    *[Step("mark", chunk=CHUNKS), Step("drain"), Step("read", chunk=CHUNKS)],
    *[Step("change", key=KEYS[1]), *COMMITTED, Step("mark", chunk=CHUNKS), Step("drain")],
]


@pytest.mark.parametrize(
    "examples", [500, pytest.param(50_000, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])], ids=["short", "long"]
)
def test_whatever_the_order_of_commits_a_replica_ends_like_the_source_and_no_row_goes_back(examples: int) -> None:
    @settings(max_examples=examples, deadline=None)
    @given(histories, st.booleans())
    def property_(history: list[Step], reads_always_again: bool) -> None:
        model = run(history, visibility_rule, reads_always_again=reads_always_again)
        assert model.existing(model.replica) == model.existing(model.visible)

    property_()


def test_a_stalled_commit_holds_the_chunk_up_until_it_is_visible() -> None:
    assert not is_wrong(LOGGED_BUT_NOT_VISIBLE, visibility_rule)


def test_a_stalled_commit_of_an_earlier_connection_holds_the_chunk_up_too() -> None:
    assert not is_wrong(DELIVERED_BY_AN_EARLIER_CONNECTION, visibility_rule)
    with pytest.raises(WentBack):
        run([*DELIVERED_BY_AN_EARLIER_CONNECTION, Step("mark"), Step("deliver")], without_those_in_progress_at_connect)


def test_a_change_that_waited_to_be_read_again_when_the_connection_broke_is_read_again() -> None:
    """The row under its new key is published, so its next change is not held any more; the stream went on behind it."""
    history = [*MOVED_AND_CHANGED_AGAIN_BEFORE_IT_WAS_READ, Step("write", key=KEYS[2]), *COMMITTED]
    history.append(Step("reconnect", number=0))
    assert not is_wrong(history, visibility_rule)
    assert is_wrong(history, visibility_rule, reads_resent_again=False)


FOUND_AGAIN_WHILE_A_CHUNK_WAS_READ = [
    *[Step("mark"), Step("drain"), Step("read"), Step("change"), *COMMITTED],
    *[Step("mark", chunk=CHUNKS), Step("drain"), Step("read", chunk=CHUNKS), Step("mark", chunk=CHUNKS), Step("drain")],
    *[Step("mark"), Step("drain")],
]


def test_a_chunk_leaves_out_a_row_that_was_read_again_since_it_was_read() -> None:
    assert not is_wrong(FOUND_AGAIN_WHILE_A_CHUNK_WAS_READ, visibility_rule, reads_always_again=True)
    with pytest.raises(WentBack):
        run(
            FOUND_AGAIN_WHILE_A_CHUNK_WAS_READ,
            visibility_rule,
            reads_always_again=True,
            tells_others_what_was_found=False,
        )


def test_a_row_that_changed_while_it_was_read_again_is_published_as_it_was_read() -> None:
    model = Model(visibility_rule)
    take(MOVED_AND_CHANGED_AGAIN_BEFORE_IT_WAS_READ, model)
    moved, newest = model.replica[KEYS[1]], model.visible[KEYS[1]]
    assert (moved.number, moved.large) == (newest.number - 1, newest.large)
    assert model.rereads.events == (EVENT,)


def test_dropping_only_what_changed_between_the_marks_lets_a_row_go_back() -> None:
    with pytest.raises(WentBack):
        run([*LOGGED_BUT_NOT_VISIBLE, Step("mark"), Step("deliver")], only_changed_between_the_marks)


def test_forgetting_what_a_snapshot_sees_that_is_newer_than_the_chunk_lets_a_row_go_back() -> None:
    meanwhile_visible = [*LOGGED_BUT_NOT_VISIBLE, Step("see"), Step("note"), Step("mark"), Step("deliver")]
    assert not is_wrong(meanwhile_visible, visibility_rule)
    with pytest.raises(WentBack):
        run(meanwhile_visible, with_what_newer_snapshots_see_forgotten)


@pytest.mark.parametrize(
    "weaker",
    [
        only_changed_between_the_marks,
        without_discarding,
        without_dropping,
        without_reading_partial_rows_again,
    ],
)
def test_the_model_finds_by_itself_that_a_weaker_rule_is_wrong(weaker: Judge) -> None:
    search = settings(max_examples=1_500, database=None, deadline=None, phases=[Phase.generate])
    history = find(histories, lambda history: is_wrong(history, weaker), settings=search, random=Random(SEARCH_SEED))
    assert not is_wrong(history, visibility_rule)
