"""The checkpoint moves with the commit, or there is no commit."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from sinks.checkpoint import Checkpoint, Checkpoints
from sinks.errors import CheckpointMoved, DataRefused, TargetRefused
from sinks.postgres import Database
from transforms.address import Address
from transforms.position import LSN, START, Position
from transforms.secret import Secret

NEXT = Position.parse("100-1000000")


@pytest.fixture
def database(target_dsn: str) -> Iterator[Database]:
    made = Database(Address("sinks.test", Secret(target_dsn)), "test")
    made.connect()
    yield made
    made.close()


@pytest.fixture
def checkpoints(database: Database) -> Checkpoints:
    made = Checkpoints(database, "shop", "billing", "me's 100 %")
    made.make_schema()
    with database.transaction():
        database.execute(b"CREATE TABLE public.t (i int)")
    return made


def begun(database: Database, checkpoints: Checkpoints) -> Checkpoint:
    with database.transaction():
        return checkpoints.begin("customer", "one", START)


def rows(target_dsn: str) -> list[tuple[object, ...]]:
    with psycopg.connect(target_dsn) as connection:
        return connection.execute("SELECT i FROM public.t").fetchall()


def test_rows_and_checkpoint_are_committed_together(
    database: Database, checkpoints: Checkpoints, target_dsn: str
) -> None:
    known = begun(database, checkpoints)
    with database.transaction():
        assert not checkpoints.lock(known)
        database.execute(b"INSERT INTO public.t VALUES (1)")
        moved = checkpoints.advance(known, NEXT, LSN(101))
        assert rows(target_dsn) == [(1,)]
    with database.transaction():
        assert checkpoints.read() == {"customer": moved}


def test_where_the_checkpoint_is_another_one_nothing_is_committed(
    database: Database, checkpoints: Checkpoints, target_dsn: str
) -> None:
    known = begun(database, checkpoints)
    elsewhere = Checkpoint(known.stream, known.incarnation, NEXT, None)

    def advance() -> None:
        with database.transaction():
            database.execute(b"INSERT INTO public.t VALUES (1)")
            checkpoints.advance(elsewhere, Position.parse("200-1000000"), None)

    with pytest.raises(CheckpointMoved):
        advance()
    assert rows(target_dsn) == []
    with database.transaction():
        assert checkpoints.read() == {"customer": known}


def test_a_failed_transaction_that_is_committed_all_the_same_is_not_taken_for_done(
    database: Database, checkpoints: Checkpoints, target_dsn: str
) -> None:
    def go_on_after_an_error() -> None:
        with database.transaction():
            database.execute(b"INSERT INTO public.t VALUES (1)")
            with pytest.raises(TargetRefused, match="no_such_function"):
                database.execute(b"SELECT no_such_function()")

    with pytest.raises(TargetRefused, match="rolled back"):
        go_on_after_an_error()
    assert rows(target_dsn) == []


@pytest.mark.parametrize("text", ["", "it's", "100 %s", "back\\slash \\' and \\n", "newline\nquote'", "Grüße ☃ 𝄞"])
def test_what_is_put_into_a_statement_s_text_arrives_as_it_is(database: Database, text: str) -> None:
    with database.transaction():  # as it begins with its first statement
        assert database.rows(b"SELECT %s::text, %s::int, %s::text, '%%'", [text, -5, None]) == [(text, -5, None, "%")]


def test_a_nul_byte_is_refused_and_not_where_a_text_ends(database: Database) -> None:
    def begin() -> None:
        with database.transaction():
            database.rows(b"SELECT %s::text", ["cut\0off"])

    with pytest.raises(DataRefused):
        begin()
