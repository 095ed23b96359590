"""Rows that a replica refuses, whatever refuses them: parked alone with their place, and the rest flows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sinks.errors import RefusedAtCommit, TooManyParked
from tests.integration.sink_harness import Pipeline, Words, column, command, customer, upsert, use_technique
from transforms.schema import SchemaDocument


@pytest.fixture
def pipeline(redis_url: str, target_dsn: str, pipeline_name: str) -> Iterator[Pipeline]:
    with Pipeline(redis_url, target_dsn, pipeline_name) as made:
        yield made


PLACE = "(commit_lsn - '0/0')::text || '-' || ordinal"

# --- every kind, in one batch ----------------------------------------------------------------------------------------

ORDER = SchemaDocument(
    "order",
    1,
    "order",
    ("id",),
    (
        column("id", "integer", nullable=False),
        column("code", "character varying(5)"),
        column("count", "smallint"),
        column("paid", "boolean"),
        column("at", "date"),
        column("place", "integer"),
    ),
)
GOOD: dict[str, object] = {"code": "fine", "count": 1, "paid": True, "at": "2024-02-29", "place": None}
RULES = """
    ALTER TABLE replica.orders ADD CHECK (count <> 13);
    ALTER TABLE replica.orders ALTER COLUMN paid SET NOT NULL;
    CREATE UNIQUE INDEX ON replica.orders (place);
    ALTER TABLE replica.orders ADD EXCLUDE USING btree (at WITH =) WHERE (at < '2000-01-01');
    CREATE TABLE replica.places (id integer PRIMARY KEY);
    INSERT INTO replica.places SELECT generate_series(1, 9);
    ALTER TABLE replica.orders ADD FOREIGN KEY (place) REFERENCES replica.places;
    CREATE FUNCTION replica.judge() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.code = 'raise' THEN RAISE 'a planted secret: %%', NEW.code; END IF;
        IF NEW.code = 'claim' THEN ASSERT false; END IF;
        IF NEW.code = 'zero' THEN NEW.count := 1 / (NEW.count - NEW.count); END IF;
        RETURN NEW; END $$;
    CREATE TRIGGER judge BEFORE INSERT OR UPDATE ON replica.orders FOR EACH ROW EXECUTE FUNCTION replica.judge();
"""
POISON: list[tuple[str, dict[str, object], str]] = [
    ("a check", {"count": 13}, "23514"),
    ("too long a value", {"code": "far too long"}, "22001"),
    ("a number out of range", {"count": 99_999}, "22003"),
    ("a value of another type", {"count": "many"}, "22P02"),
    ("a date that is none", {"at": "2023-02-29"}, "22008"),
    ("a null that may not be", {"paid": None}, "23502"),
    ("a second row of a unique index", {"place": 5}, "23505"),
    ("a reference to nothing", {"place": 77}, "23503"),
    ("a second row of an exclusion", {"at": "1999-01-01"}, "23P01"),
    ("an exception of a trigger", {"code": "raise"}, "P0001"),
    ("an assertion of a trigger", {"code": "claim"}, "P0004"),
    ("a division by zero in a trigger", {"code": "zero"}, "22012"),
]


def order(id_: int, **values: object) -> Words:
    return upsert({"id": id_}, {"id": id_} | GOOD | values, type_="order.v1")


@pytest.mark.parametrize("technique", ["json", "copy"])
def test_every_kind_of_refusal_is_parked_alone_with_its_code_and_place(
    pipeline: Pipeline, technique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_technique(technique, monkeypatch)
    pipeline.describe(ORDER)
    pipeline.tables = {"order.v1": "replica.orders"}
    pipeline.transaction(order(1, place=5), order(2, at="1999-01-01"), stream="order")
    assert pipeline.apply() == 0
    pipeline.execute(RULES)
    bad = [order(100 + number, **values) for number, (_, values, _) in enumerate(POISON)]
    good = [order(id_) for id_ in range(10, 90)]
    step = len(good) // len(bad)
    entries = [entry for at, one in enumerate(bad) for entry in (*good[at * step : (at + 1) * step], one)]
    last = pipeline.transaction(*entries, *good[len(bad) * step :], stream="order")
    assert pipeline.apply() == 1
    assert pipeline.rows("SELECT array_agg(id ORDER BY id) FROM replica.orders") == [([1, 2, *range(10, 90)],)]
    parked = pipeline.rows(f"SELECT convert_from(key, 'UTF8'), sqlstate, {PLACE} FROM cdc.dead_event ORDER BY ordinal")
    commit_lsn = last.partition("-")[0]
    assert parked == [
        (f'{{"id":{100 + number}}}', sqlstate, f"{commit_lsn}-{(step + 1) * (number + 1)}000000")
        for number, (_, _, sqlstate) in enumerate(POISON)
    ]
    messages = [message for (message,) in pipeline.rows("SELECT message FROM cdc.dead_event")]
    assert not any("secret" in message for message in messages)
    assert sum("at a trigger or function of the replica" in message for message in messages) == 3
    assert pipeline.checkpoint("order") == last
    pipeline.transaction(*(order(100 + number) for number in range(len(POISON))), stream="order")
    assert pipeline.apply() == 0
    assert pipeline.rows("SELECT count(*) FROM cdc.dead_event") == [(0,)], "a later full state heals"


@pytest.mark.parametrize(
    "amount", [10_000, pytest.param(200_000, marks=pytest.mark.soak)], ids=["10,000 rows", "200,000 rows"]
)
def test_one_poison_row_in_thousands_is_found(pipeline: Pipeline, amount: int) -> None:
    assert pipeline.apply() == 0
    pipeline.execute("ALTER TABLE replica.customers ADD CHECK (name <> 'poison')")
    for first in range(0, amount, 5_000):
        ids = range(first, first + 5_000)
        pipeline.transaction(*(customer(id_, "poison" if id_ % 10_000 == 7_777 else "x" * 100) for id_ in ids))
    assert pipeline.apply() == 1
    poisoned = range(7_777, amount, 10_000)
    assert pipeline.rows("SELECT count(*) FROM replica.customers") == [(amount - len(poisoned),)]
    keys = pipeline.rows("SELECT convert_from(key, 'UTF8'), sqlstate FROM cdc.dead_event ORDER BY commit_lsn")
    assert keys == [(f'{{"id":{id_}}}', "23514") for id_ in poisoned]


def test_rows_that_a_trigger_leaves_out_are_its_own_business(pipeline: Pipeline) -> None:
    assert pipeline.apply() == 0
    pipeline.execute(
        "CREATE FUNCTION replica.leave_out() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RETURN CASE WHEN NEW.id %% 2 = 0 THEN NEW END; END $$;"
        "CREATE TRIGGER leave_out BEFORE INSERT ON replica.customers FOR EACH ROW EXECUTE FUNCTION replica.leave_out()"
    )
    pipeline.transaction(*(customer(id_, "x") for id_ in range(6)))
    assert pipeline.apply() == 0
    assert pipeline.customers() == {0: "x", 2: "x", 4: "x"}


# --- what is refused at COMMIT ---------------------------------------------------------------------------------------


def judge_at_commit(pipeline: Pipeline, body: str) -> None:
    """A constraint trigger that is deferred."""
    pipeline.execute(
        f"CREATE FUNCTION replica.judge() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body}; RETURN NULL; END $$;"
        "CREATE CONSTRAINT TRIGGER judge AFTER INSERT OR UPDATE ON replica.customers DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION replica.judge()"
    )


@pytest.mark.parametrize(
    ("body", "sqlstate"),
    [
        ("PERFORM 1 / (NEW.id - 2)", "22012"),
        ("IF NEW.id = 2 THEN RAISE 'no'; END IF", "P0001"),
        ("IF NEW.id = 2 THEN PERFORM ln(NEW.id - 2); END IF", "2201E"),
    ],
    ids=["division by zero", "an exception", "a logarithm"],
)
def test_a_row_that_a_deferred_trigger_refuses_is_parked(pipeline: Pipeline, body: str, sqlstate: str) -> None:
    pipeline.transaction(customer(9, "first"))
    assert pipeline.apply() == 0
    judge_at_commit(pipeline, body)
    last = pipeline.transaction(customer(1, "a"), customer(2, "b"), customer(3, "c"))
    assert pipeline.apply() == 1
    assert pipeline.customers() == {1: "a", 3: "c", 9: "first"}
    assert pipeline.rows("SELECT sqlstate FROM cdc.dead_event") == [(sqlstate,)]
    assert pipeline.checkpoint() == last


def test_what_only_commit_refuses_stops_the_sink_with_what_to_do(pipeline: Pipeline) -> None:
    pipeline.transaction(customer(9, "first"))
    assert pipeline.apply() == 0
    before = pipeline.checkpoint()
    judge_at_commit(pipeline, "RAISE 'no'")
    pipeline.execute(
        "CREATE FUNCTION replica.defer() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN SET CONSTRAINTS ALL DEFERRED; RETURN NULL; END $$;"
        "CREATE TRIGGER defer BEFORE INSERT ON replica.customers EXECUTE FUNCTION replica.defer()"
    )
    pipeline.transaction(customer(1, "a"))
    with pytest.raises(RefusedAtCommit) as refused:
        pipeline.apply()
    assert "at COMMIT" in str(refused.value)
    assert "NOT DEFERRABLE" in refused.value.remedy
    assert (pipeline.customers(), pipeline.checkpoint()) == ({9: "first"}, before)
    assert pipeline.rows("SELECT count(*) FROM cdc.dead_event") == [(0,)]


def test_rows_that_refer_to_each_other_are_not_parked_for_another_ones_fault(pipeline: Pipeline) -> None:
    """Of two tables in one stream the child comes first, and the deferred reference is good at COMMIT alone."""
    fields = (column("id", "integer", nullable=False), column("parent", "integer"))
    child = SchemaDocument("child", 1, "customer", ("id",), fields)
    pipeline.describe(child)
    pipeline.tables = {"child.v1": "replica.children", "customer.v1": "replica.customers"}
    assert pipeline.apply() == 0
    pipeline.execute(
        "ALTER TABLE replica.children ADD FOREIGN KEY (parent) REFERENCES replica.customers"
        " DEFERRABLE INITIALLY DEFERRED; ALTER TABLE replica.customers ADD CHECK (name <> 'poison')"
    )
    pipeline.transaction(
        upsert({"id": 1}, {"id": 1, "parent": 1}, type_="child.v1"), customer(1, "parent"), customer(2, "poison")
    )
    assert pipeline.apply() == 1
    assert pipeline.rows("SELECT id, parent FROM replica.children") == [(1, 1)]
    assert pipeline.rows("SELECT type, sqlstate FROM cdc.dead_event") == [("customer.v1", "23514")]


# --- too many, and what a person does --------------------------------------------------------------------------------


def refuse_poison(pipeline: Pipeline) -> None:
    pipeline.execute("ALTER TABLE replica.customers ADD CONSTRAINT pure CHECK (name NOT LIKE 'poison%%')")


def test_more_in_a_row_than_the_configured_number_stop_the_worker(pipeline: Pipeline, tmp_path: Path) -> None:
    config = pipeline.config_file(tmp_path)
    assert pipeline.apply() == 0
    refuse_poison(pipeline)
    limited = tmp_path / "limited.toml"
    limited.write_text(config.read_text().replace("adopt =", "max_parked_in_a_row = 3\nadopt ="))
    pipeline.transaction(*(customer(id_, "poison") for id_ in range(3)), customer(9, "fine"))
    assert command(limited, "run", "--once")[0] == 1
    before = pipeline.checkpoint()
    pipeline.transaction(*(customer(id_, "poison") for id_ in range(4)), customer(10, "fine"))
    code, _, said = command(limited, "run", "--once")
    assert (code, "more than 3 events of customer.v1 in a row are refused" in said) == (3, True)
    assert "raise max_parked_in_a_row" in said
    assert (pipeline.checkpoint(), 10 in pipeline.customers()) == (before, False)
    assert command(config, "run", "--once")[0] == 1, "a hundred may be"
    assert 10 in pipeline.customers()


def test_a_trigger_that_raises_for_every_row_stops_the_worker(pipeline: Pipeline) -> None:
    assert pipeline.apply() == 0
    pipeline.execute(
        "CREATE FUNCTION replica.no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;"
        "CREATE TRIGGER no BEFORE INSERT ON replica.customers FOR EACH ROW EXECUTE FUNCTION replica.no()"
    )
    pipeline.transaction(*(customer(id_, "x") for id_ in range(101)))
    with pytest.raises(TooManyParked, match="RaiseException"):
        pipeline.apply()
    assert pipeline.rows("SELECT count(*) FROM cdc.dead_event") == [(0,)]


def test_what_is_parked_is_told_shown_retried_and_dropped_as_a_person_reads_it(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    config = pipeline.config_file(tmp_path)
    assert pipeline.apply() == 0
    refuse_poison(pipeline)
    last = pipeline.transaction(customer(1, "poison one"), customer(2, "poison two"))
    assert pipeline.apply() == 1
    code, listed, _ = command(config, "dead", "list")
    one, two = (int(line.split()[0]) for line in listed.splitlines()[-2:])
    assert code == 0
    assert all(
        "CheckViolation (SQLSTATE 23514) at table customers, constraint pure" in line for line in listed.splitlines()
    )
    assert "poison" not in listed
    shown = json.loads(command(config, "dead", "show", str(two))[1])
    assert (shown["entry"], shown["sqlstate"], shown["state"]) == (last, "23514", '{"id":2,"name":"poison two"}')
    code, said, _ = command(config, "dead", "retry", str(one), str(two))
    assert (code, said.count("refused again")) == (1, 2)
    pipeline.execute("ALTER TABLE replica.customers DROP CONSTRAINT pure")
    assert command(config, "dead", "retry", str(one))[:2] == (0, f"{one}: applied\n")
    assert command(config, "dead", "drop", str(two), "--yes")[:2] == (0, "forgotten: 1\n")
    code, _, said = command(config, "dead", "show", str(two))
    assert (code, f"there is no parked event {two}" in said, "dead NAME" in said) == (3, True, False)
    assert command(config, "dead", "list")[1] == "nothing is parked\n"


# --- versions of workers ---------------------------------------------------------------------------------------------


def test_a_worker_of_a_version_before_goes_on_beside_one_of_this_version(pipeline: Pipeline) -> None:
    """It kept the keys that a run had seen in `seen_table`, and writes that column by its name."""
    pipeline.transaction(customer(1, "a"))
    assert pipeline.apply() == 0
    pipeline.execute("ALTER TABLE cdc.replica DROP COLUMN unseen_table, ADD COLUMN seen_table text")
    pipeline.execute(
        "CREATE TABLE cdc.seen_theirs (id integer PRIMARY KEY);"
        "INSERT INTO cdc.replica (table_name, pipeline, sink, event, run, seen_table)"
        " VALUES ('theirs', 'another', 'sink', 'e.v1', 'r7', 'seen_theirs')"
    )
    pipeline.transaction(customer(2, "b"))
    assert pipeline.apply() == 0
    theirs = "SELECT run, seen_table, wants_snapshot FROM cdc.replica WHERE table_name = 'theirs'"
    assert pipeline.rows(theirs) == [("r7", "seen_theirs", False)]
    assert pipeline.rows("SELECT count(*) FROM cdc.seen_theirs") == [(0,)]
    pipeline.execute("UPDATE cdc.replica SET run = NULL, seen_table = NULL, filled = true WHERE table_name = 'theirs'")
