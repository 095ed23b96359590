"""A value of any type is the same in an embed as in an event."""

from __future__ import annotations

import json
from contextlib import closing

import psycopg
from psycopg import sql

from cdc.config import EventConfig
from cdc.related.configuration import EmbedConfig
from cdc.related.mapping import map_whole
from cdc.snapshot.subject import Subject
from cdc.source.chunk import read_chunk
from cdc.source.connection import Source
from cdc.source.tables import describe_tables
from tests.types.samples import OWN_SAMPLES, OWN_TYPES, SAMPLES, arrays_of
from transforms.address import Address
from transforms.masking import Masks
from transforms.names import TableName
from transforms.row import Absent, Row
from transforms.secret import Secret

ARRAYS = ("boolean", "bytea", "integer", "numeric", "text", "timestamp with time zone", "box", "jsonb", "pair", "mood")


def literals() -> dict[str, list[str]]:
    """Type -> literals."""
    scalars = {**SAMPLES, **OWN_SAMPLES}
    arrays = {f"{name}[]": arrays_of(scalars[name], ";" if name == "box" else ",") for name in ARRAYS}
    return {**{name: list(of) for name, of in scalars.items()}, **arrays}


def filled(connection: psycopg.Connection) -> dict[str, str]:
    """Make a table with a column of each type, related to itself; returns column -> type."""
    columns = {f"c{number}": name for number, name in enumerate(literals())}
    shape = ", ".join(f"{column} {type_}" for column, type_ in columns.items())
    connection.execute(f"CREATE TABLE samples (id int PRIMARY KEY, {shape})".encode())
    rows = max(map(len, literals().values()))
    connection.execute(f"INSERT INTO samples SELECT generate_series(0, {rows})".encode())
    for column, type_ in columns.items():
        for row, literal in enumerate(literals()[type_]):
            statement = sql.SQL("UPDATE samples SET {} = {}::{} WHERE id = {}").format(
                sql.Identifier(column), sql.Literal(literal), sql.SQL(type_), sql.Literal(row)
            )
            try:
                with connection.transaction():
                    connection.execute(statement)
            except (psycopg.DataError, psycopg.errors.FeatureNotSupported):  # this server has no such value
                continue
    return columns


def test_every_value_is_in_an_embed_as_it_is_in_an_event(source_dsn: str) -> None:
    with psycopg.connect(source_dsn) as connection:
        connection.execute(OWN_TYPES.encode())
        columns = filled(connection)
    name = TableName("public", "samples")
    listed = ("id", *columns)
    embed = EmbedConfig(name="same", table=name, on={"id": "id"}, columns=listed, many=False)
    with closing(Source(Address("source", Secret(source_dsn)), "test")) as source:
        event = EventConfig(name="sample", table=name, columns=listed, embeds=(embed,))
        subject = Subject.of(map_whole(event, describe_tables(source, [name])), 1, str.encode, Masks())
        rows = read_chunk(source, subject.query(), 1 << 30, subject.route.encoder.lines).rows
    compared = 0
    for row in rows:
        assert not isinstance(row, Absent)
        state = json.loads(row[1], parse_float=str)
        same = state.pop("same")
        quoted = row.quoted if isinstance(row, Row) else tuple[str, ...]()
        for column, value in state.items():
            if column in quoted:  # said of a field alone: in an embed a JSON null is null, and space has no meaning
                continue
            assert same[column] == value, (columns.get(column), value, same[column])
            compared += value is not None
    assert compared > 500
