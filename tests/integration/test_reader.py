"""`cdc run` against real servers: what it makes, what it refuses, how it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.processes import Pipeline, closing, wait_until

EVENTS = """
[events.customer]
table = "customers"
columns = ["id", "name"]
"""


@pytest.fixture
def shop(source_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path) -> Iterator[Pipeline]:
    """A table of three customers, mapped, and nothing started."""
    with psycopg.connect(source_dsn) as connection:
        connection.execute("CREATE TABLE customers (id int PRIMARY KEY, name text, secret text DEFAULT 'PLANTED')")
        connection.execute("INSERT INTO customers VALUES (1, 'Ada'), (2, 'Bo'), (3, NULL)")
    with closing(Pipeline(pipeline_name, source_dsn, redis_url, tmp_path, EVENTS)) as made:
        yield made


def execute(shop: Pipeline, statement: str) -> None:
    with psycopg.connect(shop.source_dsn, autocommit=True) as connection:
        connection.execute(statement.encode())


def entries(shop: Pipeline, stream: str = "customer") -> list[dict[str, str]]:
    """The entries that carry rows."""
    found = shop.redis.xrange(shop.keys.stream(stream, 1))
    decoded = [{name.decode(): value.decode() for name, value in fields.items()} for _, fields in found]  # type: ignore[union-attr]
    return [fields for fields in decoded if fields["op"] != "mark"]


def publications(shop: Pipeline) -> list[tuple[object, ...]]:
    with psycopg.connect(shop.source_dsn) as connection:
        return connection.execute("SELECT pubname FROM pg_publication").fetchall()


def slots(shop: Pipeline) -> list[tuple[object, ...]]:
    with psycopg.connect(shop.source_dsn) as connection:
        return connection.execute(
            "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()"
        ).fetchall()


def test_once_publishes_what_is_there_and_what_was_committed_then_ends(shop: Pipeline) -> None:
    shop.run("cdc.cli", "run", "--once")
    assert [(entry["key"], entry["origin"]) for entry in entries(shop)] == [
        ('{"id":1}', "snapshot"),
        ('{"id":2}', "snapshot"),
        ('{"id":3}', "snapshot"),
    ]
    execute(shop, "UPDATE customers SET name = 'Zoë' WHERE id = 2; DELETE FROM customers WHERE id = 3")
    shop.run("cdc.cli", "run", "--once")
    update, delete = entries(shop)[3:]
    assert (update["op"], update["state"]) == ("upsert", '{"id":2,"name":"Zoë"}')
    assert (delete["op"], delete["key"], delete["end"]) == ("delete", '{"id":3}', "1")
    assert update["tx"] == delete["tx"]
    assert "end" not in update


def test_it_says_once_when_the_last_snapshot_is_done(shop: Pipeline) -> None:
    execute(shop, "CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders VALUES (1), (2)")
    shop.path.write_text(shop.path.read_text() + '[events.order]\ntable = "orders"\ncolumns = ["id"]\n')
    told = shop.run("cdc.cli", "run", "--once")
    assert told.count("the last snapshot is done") == 1
    assert "the last snapshot is done: 2 events, 5 rows in all" in told
    assert told.rindex("is complete: ") < told.index("the last snapshot is done")
    assert "snapshot" not in shop.run("cdc.cli", "run", "--once")


def test_once_confirms_what_it_published(shop: Pipeline) -> None:
    shop.run("cdc.cli", "run", "--once")
    execute(shop, "UPDATE customers SET name = 'x'")
    position = shop.flush_position()
    shop.run("cdc.cli", "run", "--once")
    with psycopg.connect(shop.source_dsn) as connection:
        row = connection.execute(
            "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s",
            (str(position), f"cdc_{shop.name}"),
        ).fetchone()
    assert row == (True,)


def test_the_schema_document_tells_fields_and_key_and_not_the_table(shop: Pipeline) -> None:
    shop.run("cdc.cli", "run", "--once")
    text = shop.redis.hget(shop.keys.schema, "customer.v1")
    assert isinstance(text, bytes)
    document = json.loads(text)
    assert [(column["name"], column["pg_type"], column["nullable"]) for column in document["columns"]] == [
        ("id", "integer", False),
        ("name", "text", True),
    ]
    assert document["key"] == ["id"]
    assert b"customers" not in text


def test_unlisted_columns_are_in_no_key_of_redis(shop: Pipeline) -> None:
    shop.run("cdc.cli", "run", "--once")
    execute(shop, "ALTER TABLE customers REPLICA IDENTITY FULL; UPDATE customers SET secret = 'PLANTED again'")
    shop.run("cdc.cli", "run", "--once")
    for key in shop.redis.scan_iter(f"{shop.name}:*"):
        assert b"PLANTED" not in (shop.redis.dump(key) or b"")
    assert len(entries(shop)) == 6


def test_a_table_without_identity_is_refused_before_anything_is_made(shop: Pipeline) -> None:
    execute(shop, "ALTER TABLE customers DROP CONSTRAINT customers_pkey")
    printed = shop.run("cdc.cli", "run", expect=3)
    assert "has no replica identity" in printed
    assert "remedy:" in printed
    assert (publications(shop), slots(shop)) == ([], [])
    execute(shop, "UPDATE customers SET name = 'still works'")


def test_tables_that_inherit_from_a_mapped_one_are_left_alone(shop: Pipeline) -> None:
    execute(shop, "CREATE TABLE former () INHERITS (customers); INSERT INTO former VALUES (4, 'Cy')")
    shop.run("cdc.cli", "run", "--once")
    execute(shop, "UPDATE customers SET name = 'x'")  # of both; `former` has no identity
    shop.run("cdc.cli", "run", "--once")
    assert [entry["key"] for entry in entries(shop)] == ['{"id":1}', '{"id":2}', '{"id":3}'] * 2


def test_a_column_that_does_not_exist_is_named(shop: Pipeline) -> None:
    execute(shop, "ALTER TABLE customers RENAME name TO full_name")
    printed = shop.run("cdc.cli", "run", expect=3)
    assert "events.customer.columns: public.customers has no column name (it has id, full_name, secret)" in printed


def test_a_slot_that_is_gone_is_not_made_again_in_silence(shop: Pipeline) -> None:
    shop.run("cdc.cli", "run", "--once")
    shop.drop_slot()
    printed = shop.run("cdc.cli", "run", expect=3)
    assert "the slot does not exist any more" in printed
    assert "`cdc snapshot --all`" in printed
    assert slots(shop) == []


def test_a_slot_that_was_confirmed_by_somebody_else_is_a_hole(shop: Pipeline) -> None:
    shop.run("cdc.cli", "run", "--once")
    execute(shop, "UPDATE customers SET name = 'missed'")
    shop.advance_slot()
    assert "the slot is confirmed up to" in shop.run("cdc.cli", "run", expect=3)


def test_a_stream_that_lost_its_tail_is_a_hole(shop: Pipeline) -> None:
    shop.run("cdc.cli", "run", "--once")
    shop.redis.delete(shop.keys.stream("customer", 1))
    assert "was published to it" in shop.run("cdc.cli", "run", expect=3)


def test_streams_without_their_position_are_refused(shop: Pipeline) -> None:
    shop.run("cdc.cli", "run", "--once")
    shop.redis.delete(shop.keys.meta)
    assert "not the position they stand at" in shop.run("cdc.cli", "run", expect=3)


def test_what_is_sent_again_must_be_what_is_in_the_stream(shop: Pipeline) -> None:
    shop.path.write_text(shop.path.read_text().replace("confirm_delay_seconds = 0.3", "confirm_delay_seconds = 3600"))
    reader = shop.reader()
    shop.wait_published()
    execute(shop, "UPDATE customers SET name = 'a' WHERE id = 1")
    shop.wait_published()
    reader.terminate()
    reader.start()  # the slot sends all of it again
    execute(shop, "UPDATE customers SET name = 'b' WHERE id = 1")
    shop.wait_published()
    reader.terminate()
    assert len(entries(shop)) == 5
    removed = shop.redis.xrevrange(shop.keys.stream("customer", 1), count=2)[-1]  # type: ignore[index]
    shop.redis.xdel(shop.keys.stream("customer", 1), removed[0])  # type: ignore[arg-type]
    assert "though later ones are" in shop.run("cdc.cli", "run", expect=3)


def test_a_pipeline_that_was_half_made_is_made(shop: Pipeline) -> None:
    shop.redis.hset(shop.keys.meta, "incarnation", "left by a crash")
    shop.run("cdc.cli", "run", "--once")
    assert len(entries(shop)) == 3


def test_the_snapshot_of_a_table_that_comes_back_is_planned_before_it_is_published(shop: Pipeline) -> None:
    shop.run("cdc.cli", "run", "--once")
    role = f"reader_{shop.name}"
    execute(shop, f"ALTER PUBLICATION cdc_{shop.name} DROP TABLE customers")
    execute(shop, f"CREATE ROLE {role} LOGIN REPLICATION; GRANT SELECT ON public.customers TO {role}")
    owner = shop.environment["SOURCE_DSN"]
    shop.environment["SOURCE_DSN"] = make_conninfo(shop.source_dsn, user=role)
    try:
        shop.run("cdc.cli", "run", expect=3)  # it ends between the two, for this role may not publish
    finally:
        execute(shop, f"DROP OWNED BY {role}; DROP ROLE {role}")
    execute(shop, f"UPDATE customers SET name = 'missed'; ALTER PUBLICATION cdc_{shop.name} ADD TABLE customers")
    shop.environment["SOURCE_DSN"] = owner
    shop.run("cdc.cli", "run", "--once")
    assert [json.loads(entry["state"])["name"] for entry in entries(shop)[3:]] == ["missed"] * 3


def test_a_second_reader_stands_by_and_takes_over(shop: Pipeline) -> None:
    first = shop.reader()
    shop.wait_published()
    second = shop.command("cdc.cli", "run", log="second")
    second.start()
    wait_until("the second to stand by", lambda: "standing by" in second.output)
    execute(shop, "UPDATE customers SET name = 'a'")
    first.kill()
    wait_until("the second to take over", lambda: "streaming from" in second.output, 5)
    execute(shop, "UPDATE customers SET name = 'b'")
    shop.wait_published()
    assert [json.loads(entry["state"])["name"] for entry in entries(shop)[3:]] == ["a", "a", "a", "b", "b", "b"]


def test_a_newly_mapped_event_is_snapshotted_by_itself(shop: Pipeline) -> None:
    shop.run("cdc.cli", "run", "--once")
    execute(shop, "CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders VALUES (7)")
    shop.path.write_text(shop.path.read_text() + '[events.order]\ntable = "orders"\ncolumns = ["id"]\n')
    shop.run("cdc.cli", "run", "--once")
    assert [(entry["key"], entry["origin"]) for entry in entries(shop, "order")] == [('{"id":7}', "snapshot")]
    assert len(entries(shop)) == 3, "what was mapped before is not read again"


def test_rows_of_a_writer_that_was_open_when_its_table_was_mapped_are_not_missed(shop: Pipeline) -> None:
    shop.run("cdc.cli", "run", "--once")
    execute(shop, "CREATE TABLE orders (id int PRIMARY KEY)")
    shop.path.write_text(shop.path.read_text() + '[events.order]\ntable = "orders"\ncolumns = ["id"]\n')
    with psycopg.connect(shop.source_dsn) as writer:
        writer.execute("INSERT INTO orders VALUES (1)")
        reader = shop.reader()
        wait_until("the publication to hold the table", lambda: "added public.orders" in reader.output)
        wait_until("the snapshot to wait", lambda: "waits for 1 open transactions" in reader.output)
        writer.commit()
    shop.wait_published()
    assert [entry["key"] for entry in entries(shop, "order")] == ['{"id":1}']


def test_a_nullable_field_that_is_added_is_a_new_revision_with_a_snapshot(shop: Pipeline) -> None:
    shop.run("cdc.cli", "run", "--once")
    execute(shop, "ALTER TABLE customers ADD COLUMN email text; UPDATE customers SET email = 'e' WHERE id = 1")
    shop.path.write_text(shop.path.read_text().replace('"name"]', '"name", "email"]'))
    shop.run("cdc.cli", "run", "--once")
    newest = entries(shop)[-3:]
    assert [(json.loads(entry["state"]).get("email"), entry.get("rev")) for entry in newest] == [
        ("e", "2"),
        (None, "2"),
        (None, "2"),
    ]


def test_large_rows_are_read_in_chunks_of_bounded_size(shop: Pipeline) -> None:
    execute(
        shop,
        "ALTER TABLE customers ALTER name SET STORAGE EXTERNAL;"
        "INSERT INTO customers SELECT i, repeat('x', 1000000) FROM generate_series(4, 40) i",
    )
    shop.run("cdc.cli", "run", "--once")
    assert [entry["key"] for entry in entries(shop)] == [f'{{"id":{number}}}' for number in range(1, 41)]
    assert len({entry["tx"] for entry in entries(shop)}) > 3, "all rows came in one chunk"


def test_removing_a_field_needs_a_new_version(shop: Pipeline) -> None:
    shop.run("cdc.cli", "run", "--once")
    shop.path.write_text(shop.path.read_text().replace('["id", "name"]', '["id"]'))
    printed = shop.run("cdc.cli", "run", expect=3)
    assert "name is no longer among its columns" in printed
    assert "version" in printed


def test_a_role_that_may_not_publish_is_told_what_the_owner_must_run(shop: Pipeline) -> None:
    role = f"reader_{shop.name}"
    execute(shop, f"CREATE ROLE {role} LOGIN REPLICATION; GRANT SELECT ON public.customers TO {role}")
    shop.environment["SOURCE_DSN"] = make_conninfo(shop.source_dsn, user=role)
    try:
        printed = shop.run("cdc.cli", "run", expect=3)
    finally:
        execute(shop, f"DROP OWNED BY {role}; DROP ROLE {role}")
    assert f'owner run: CREATE PUBLICATION "cdc_{shop.name}" FOR TABLE ONLY "public"."customers"' in printed


def test_an_unreachable_server_is_given_up_before_first_contact(shop: Pipeline) -> None:
    shop.environment["REDIS_URL"] = "redis://127.0.0.1:1/0"
    assert "Redis does not answer" in shop.run("cdc.cli", "run", "--connect-timeout", "1", expect=4)


@pytest.mark.parametrize("name", ["SOURCE_DSN", "REDIS_URL"])
def test_a_malformed_address_is_refused_without_repeating_it(shop: Pipeline, name: str) -> None:
    shop.environment[name] = "redis://u:PLANTED@h:port/x" if name == "REDIS_URL" else "host=h PLANTED"
    assert "PLANTED" not in shop.run("cdc.cli", "run", expect=2)


def test_drop_leaves_nothing(shop: Pipeline) -> None:
    shop.run("cdc.cli", "run", "--once")
    shop.run("cdc.cli", "drop", "--yes")
    assert (publications(shop), slots(shop)) == ([], [])
    assert list(shop.redis.scan_iter(f"{shop.name}:*")) == []


def test_status_and_check_say_where_things_stand(shop: Pipeline) -> None:
    assert "does not exist yet" in shop.run("cdc.cli", "check")
    shop.run("cdc.cli", "run", "--once")
    status = json.loads(shop.run("cdc.cli", "status", "--json"))
    assert status["reader"]["state"] == "stopped"
    assert status["source"]["slot"]["active_pid"] is None
    assert status["streams"][0]["entries"] == 5
    assert status["snapshots"][0]["state"] == "done"
    shop.drop_slot()
    shop.run("cdc.cli", "run", expect=3)
    assert "the slot does not exist any more" in shop.run("cdc.cli", "status")


def test_a_start_does_not_wait_for_a_table_that_somebody_alters(shop: Pipeline) -> None:
    shop.run("cdc.cli", "run", "--once")
    with psycopg.connect(shop.source_dsn) as owner:
        owner.execute("ALTER TABLE customers ADD COLUMN note text")
        reader = shop.reader()
        wait_until("the reader to stream", lambda: "streaming from" in reader.output)


def test_a_table_that_is_altered_while_it_is_to_be_published_is_told_and_waited_for(shop: Pipeline) -> None:
    with psycopg.connect(shop.source_dsn) as owner:
        owner.execute("ALTER TABLE customers ADD COLUMN note text")
        reader = shop.reader("--connect-timeout", "1")
        told = "another session holds a lock on one of its tables"
        wait_until("the lock to be told", lambda: told in reader.output)
        wait_until("its status", lambda: told.encode() in (shop.redis.get(shop.keys.reader_status) or b""))
    wait_until("the reader to stream", lambda: "streaming from" in reader.output)


def test_a_snapshot_run_that_was_spoilt_is_told_and_hinders_nothing_else(shop: Pipeline) -> None:
    shop.run("cdc.cli", "run", "--once")
    shop.redis.hset(shop.keys.runs, "7-0:customer.v1", "spoilt")
    reader = shop.reader()
    told = f"snapshot run 7-0:customer.v1 in {shop.keys.runs} cannot be read and is not made: it is not JSON"
    remedy = f"Run `cdc snapshot customer`, which makes it anew; then remove it in Redis: HDEL {shop.keys.runs}"
    wait_until("it to be told", lambda: told in reader.output)
    execute(shop, "INSERT INTO customers VALUES (4, 'Di')")
    wait_until("the row", lambda: '{"id":4}' in [entry["key"] for entry in entries(shop)])
    [problem] = json.loads(shop.run("cdc.cli", "status", "--json"))["problems"]
    assert (problem["severity"], problem["what"]) == ("error", told)
    assert problem["remedy"].startswith(remedy)
    shop.run("cdc.cli", "snapshot", "customer", "--wait")
    shop.redis.hdel(shop.keys.runs, "7-0:customer.v1")
    assert json.loads(shop.run("cdc.cli", "status", "--json"))["problems"] == []
    assert reader.output.count(told) <= 2  # at the start, and by the session
    assert reader.terminate() == 0
