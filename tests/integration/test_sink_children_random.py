"""Random changes of orders, with runs, parked rows and kills: child tables hold what columns hold, and never half."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.contracts import expect_streams_as_promised
from tests.integration.order_harness import ORDER, line, order, remove
from tests.integration.sink_harness import Pipeline, Words, command, mark, truncate, upsert, use_technique
from transforms.failpoints import ALLOWED_BY, ARMED_BY, OF_SINK, Failpoint

KEYS = range(1, 9)
AS_TABLES = {"order.v1": {name: f"replica.{name}" for name in ("lines", "tags", "customer")}}
OF_TABLES = """
SELECT o.id, o.status, coalesce(lines.all, '[]'), coalesce(tags.all, '[]'), to_jsonb(c) - 'order_id'
FROM replica.orders o
LEFT JOIN replica.customer c ON c.order_id = o.id
CROSS JOIN LATERAL (
    SELECT jsonb_agg(to_jsonb(l) - 'order_id' ORDER BY l.id) FROM replica.lines l WHERE l.order_id = o.id
) AS lines ("all")
CROSS JOIN LATERAL (
    SELECT jsonb_agg(t.word ORDER BY t.ordinal) FROM replica.tags t WHERE t.order_id = o.id
) AS tags ("all")
"""
OF_COLUMNS = "SELECT id, status, lines, jsonb_path_query_array(tags, '$[*].word'), customer FROM columns.orders"
PARKED = "SELECT DISTINCT (convert_from(key, 'UTF8')::json ->> 'id')::integer FROM cdc.dead_event"
ORPHANS = "SELECT order_id FROM replica.{} c WHERE NOT EXISTS (SELECT FROM replica.orders o WHERE o.id = c.order_id)"

State = dict[str, Any]


@dataclass
class Source:
    """Orders as their database would have them, and each state that they ever had."""

    chance: random.Random
    rows: dict[int, State] = field(default_factory=dict)
    versions: dict[str, State] = field(default_factory=dict)

    def entries(self) -> list[Words]:
        """What one change publishes."""
        key, kind = self.chance.choice(KEYS), self.chance.random()
        if kind < 0.02:
            self.rows.clear()
            return [truncate("order.v1")]
        if key not in self.rows or kind < 0.4:
            return [self._entry(key, self._put(key, self._state()))]
        if kind < 0.5:
            del self.rows[key]
            return [remove(key)]
        if kind < 0.6:
            return self._move(key)
        absent = self.chance.choice(["lines", "tags", "customer"])
        state = self._put(key, self._state() | {absent: self.rows[key][absent]})
        given = {"id": key} | state | {"tags": [{"word": word} for word in state["tags"]]}
        del given[absent]
        return [upsert({"id": key}, given, b"partial", f'["{absent}"]'.encode(), type_="order.v1")]

    def snapshot(self, run: str) -> list[Words]:
        """A run with every row."""
        rows = [[*self._entry(key, state), b"origin", b"snapshot"] for key, state in self.rows.items()]
        return [mark("run-begin", run, "order.v1"), *rows, mark("run-end", run, "order.v1")]

    def _move(self, key: int) -> list[Words]:
        to = self.chance.choice([other for other in KEYS if other != key])
        state = self.rows.pop(key) | {"status": self._status()}
        gone = [remove(key), *([remove(to)] if to in self.rows else [])]
        return [*gone, self._entry(to, self._put(to, state))]

    def _put(self, key: int, state: State) -> State:
        self.rows[key] = self.versions[state["status"]] = state
        return state

    def _entry(self, key: int, state: State) -> Words:
        lines, tags, customer = state["lines"], " ".join(state["tags"]), state["customer"]
        return order(key, state["status"], *lines, tags=tags, customer=customer)

    def _state(self) -> State:
        ids = sorted(self.chance.sample(range(1, 7), self.chance.randint(0, 4)))
        return {
            "status": self._status(),
            "lines": [self._line(id_) for id_ in ids],
            "tags": self.chance.choices("xyz", k=self.chance.randint(0, 3)),
            "customer": self.chance.choice([None, {"id": 1, "name": self.chance.choice("JK")}]),
        }

    def _line(self, id_: int) -> State:
        sku = "bad" if self.chance.random() < 0.03 else self.chance.choice("abc")
        return line(id_, sku, title=self.chance.choice([None, "t"]))

    def _status(self) -> str:
        return f"v{len(self.versions)}"


@pytest.fixture
def pipeline(redis_url: str, target_dsn: str, pipeline_name: str) -> Iterator[Pipeline]:
    """A pipeline of orders for two sinks: `billing` has child tables, `shipping` columns."""
    with Pipeline(redis_url, target_dsn, pipeline_name) as made:
        made.describe(ORDER)
        yield made
        expect_streams_as_promised(made.redis, made.keys)


def use(pipeline: Pipeline, sink: str) -> None:
    is_billing = sink == "billing"
    pipeline.tables = {"order.v1": "replica.orders" if is_billing else "columns.orders"}
    pipeline.embeds = AS_TABLES if is_billing else {}


def rows_of(pipeline: Pipeline, query: str) -> dict[int, State]:
    return {
        id_: {"status": status, "lines": lines, "tags": tags, "customer": customer}
        for id_, status, lines, tags, customer in pipeline.rows(query)
    }


def in_the_replica(state: State) -> State:
    """With the numbers that JSON has of a numeric."""
    return state | {"lines": [each | {"price": float(each["price"])} for each in state["lines"]]}


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 40))])
def test_child_tables_hold_what_columns_hold(
    pipeline: Pipeline, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    source = Source(chance)
    use_technique(chance.choice(["json", "copy"]), monkeypatch)
    use(pipeline, "billing")
    assert pipeline.apply() == 0
    pipeline.execute("ALTER TABLE replica.lines ADD CHECK (sku <> 'bad')")
    for number in range(12):
        for _ in range(chance.randint(1, 6)):
            entries = [words for _ in range(chance.randint(1, 5)) for words in source.entries()]
            pipeline.transaction(*entries, stream="order")
        if chance.random() < 0.2:
            pipeline.transaction(*source.snapshot(f"r{number}"), stream="order")
        use(pipeline, "billing")
        if chance.random() < 0.3:
            place = chance.choice([each for each in OF_SINK if each is not Failpoint.GROUP_MOVED])
            with monkeypatch.context() as patch:
                patch.setenv(ALLOWED_BY, "1")
                patch.setenv(ARMED_BY, f"{place}:kill")
                assert command(pipeline.config_file(tmp_path), "run", "--once")[0] == -9
            pipeline.execute("UPDATE cdc.checkpoint SET lease_until = NULL")  # which would be waited for
        pipeline.apply()
        parked = {
            row[0]
            for row in pipeline.rows("SELECT (convert_from(key, 'UTF8')::json ->> 'id')::int FROM cdc.dead_event")
        }
        found = rows_of(pipeline, OF_TABLES)
        expected = {key: in_the_replica(state) for key, state in source.rows.items()}
        assert {key: state for key, state in found.items() if key not in parked} == {
            key: state for key, state in expected.items() if key not in parked
        }
        for key in parked & found.keys():
            assert found[key] == in_the_replica(source.versions[found[key]["status"]]), "an older state, and all of it"
        for table in AS_TABLES["order.v1"]:
            assert pipeline.rows(ORPHANS.format(table)) == []
    use(pipeline, "shipping")
    assert pipeline.apply("shipping") == 0
    assert rows_of(pipeline, OF_COLUMNS) == source.rows
