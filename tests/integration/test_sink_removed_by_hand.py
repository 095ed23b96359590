"""Entries that somebody removes from a stream by hand: no sink applies anything that comes behind the hole."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sinks.errors import StreamHole
from sinks.worker import Worker
from tests.integration.sink_harness import Pipeline, customer, wait_until
from transforms.errors import StatecastError

PLACES = ("head", "middle", "tail")
"""Of what the sink has not read yet."""


@pytest.fixture
def pipeline(redis_url: str, target_dsn: str, pipeline_name: str) -> Iterator[Pipeline]:
    """A pipeline that publishes customers."""
    with Pipeline(redis_url, target_dsn, pipeline_name) as made:
        yield made


class Sink:
    """A worker in a thread."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.failure: StatecastError | None = None
        self._pipeline = pipeline
        self._stop = threading.Event()
        self._worker = Worker(pipeline.config(), self._stop)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._worker.run()
        except StatecastError as error:
            self.failure = error

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def noticed(self) -> bool:
        """Whether it has stopped at a hole, or waits for what Redis lost."""
        return isinstance(self.failure, StreamHole) or "lost its tail" in str(self._worker.status.reason)


@contextmanager
def running(pipeline: Pipeline) -> Iterator[Sink]:
    sink = Sink(pipeline)
    try:
        yield sink
    finally:
        sink.stop()


class Unread:
    """What is published and damaged in one go, so that a sink at work sees nothing of it before the damage."""

    def __init__(self, pipeline: Pipeline, chance: random.Random) -> None:
        self._pipeline, self._chance = pipeline, chance
        self._key = pipeline.keys.stream("customer", 1)
        self._pipe: Any = pipeline.redis.pipeline(transaction=True)
        self.ids: list[str] = []

    def publish(self, count: int) -> None:
        """So many transactions, of one entry to three."""
        for _ in range(count):
            self._pipeline.lsn += self._chance.randint(1, 500)
            entries = self._chance.randint(1, 3)
            for number in range(1, entries + 1):
                self.ids.append(f"{self._pipeline.lsn}-{number * 1_000_000}")
                end = [b"end", b"1"] if number == entries else []
                words = customer(self._chance.randint(1, 9), f"unread {len(self.ids)}", *end)
                self._pipe.execute_command("XADD", self._key, self.ids[-1], *words)
        if self.ids:
            stands = {"published": self._pipeline.published, "last:customer": self.ids[-1]}
            self._pipe.hset(self._pipeline.keys.meta, mapping=stands)

    def damage(self, command: str, place: str) -> None:
        """Remove what was published at a place."""
        if command == "DEL":
            self._pipe.delete(self._key)
        elif command == "XDEL":
            inner = self._chance.choice(self.ids[1:-1])
            self._pipe.xdel(self._key, {"head": self.ids[0], "middle": inner, "tail": self.ids[-1]}[place])
        elif place == "tail":
            self._pipe.xtrim(self._key, maxlen=0, approximate=False)
        else:
            first_left = self.ids[1] if place == "head" else self._chance.choice(self.ids[2:])
            self._pipe.xtrim(self._key, minid=first_left, approximate=False)

    def execute(self) -> None:
        self._pipe.execute()


def remove(pipeline: Pipeline, chance: random.Random, command: str, place: str) -> None:
    """Publish what the sink has not read, damage it, and publish more or not."""
    unread = Unread(pipeline, chance)
    counts = {"head": (0, 6), "middle": (3, 3), "tail": (6, 0)}[place] if command == "DEL" else (6, 0)
    unread.publish(counts[0])
    unread.damage(command, place)
    unread.publish(counts[1] + chance.choice((0, 2)))
    unread.execute()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sink_is", ["running", "stopped"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("command", ["XTRIM", "XDEL", "DEL"])
def test_nothing_behind_the_hole_is_applied(
    pipeline: Pipeline, command: str, place: str, sink_is: str, seed: int
) -> None:
    chance = random.Random(f"{command} {place} {seed}")
    for number in range(chance.randint(1, 5)):
        pipeline.transaction(customer(number, "read"), customer(number + 5, "read"))
    before: dict[int, str | None] = {}

    with running(pipeline) as first:
        wait_until(lambda: pipeline.status().get("applied_lsn") == pipeline.published, "the replica is filled")
        before.update(pipeline.customers())
        if sink_is == "running":
            remove(pipeline, chance, command, place)
            wait_until(lambda: first.noticed, "the sink notices")
    if sink_is == "stopped":
        remove(pipeline, chance, command, place)
        with running(pipeline) as second:
            wait_until(lambda: second.noticed, "the sink notices")
    assert pipeline.customers() == before


@pytest.mark.parametrize("sink_is", ["running", "stopped"])
def test_a_sink_that_has_read_nothing_yet_is_not_up_to_date_with_a_stream_that_was_deleted(
    pipeline: Pipeline, sink_is: str
) -> None:
    unread = Unread(pipeline, random.Random(1))
    if sink_is == "stopped":
        unread.publish(3)
        unread.damage("DEL", "tail")
        unread.execute()
    with running(pipeline) as sink:
        if sink_is == "running":
            wait_until(lambda: pipeline.status().get("applied_lsn"), "it waits at the beginning")
            unread.publish(3)
            unread.damage("DEL", "tail")
            unread.execute()
        wait_until(lambda: sink.noticed, "the sink notices")
        reason = "before the last entry that was published to it"
        wait_until(lambda: reason in str(pipeline.status()["reason"]), "it says why")  # it tries again in between
        assert pipeline.status()["applied_lsn"] != pipeline.published
        assert pipeline.customers() == {}


def test_what_was_applied_already_may_be_removed_before_the_place_of_the_sink(pipeline: Pipeline) -> None:
    ids = [pipeline.transaction(customer(number, "read")) for number in range(4)]
    key = pipeline.keys.stream("customer", 1)
    with running(pipeline) as sink:
        wait_until(lambda: pipeline.status().get("applied_lsn") == pipeline.published, "the replica is filled")
        pipeline.redis.xdel(key, ids[1])
        pipeline.redis.xtrim(key, minid=ids[3], approximate=False)
        pipeline.transaction(customer(9, "after"))
        wait_until(lambda: 9 in pipeline.customers(), "it goes on")
        assert sink.failure is None
