"""pgoutput: real messages decode to what the server did; damaged ones are refused and never misread."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc import pgoutput
from cdc.messages import (
    BeginMessage,
    CommitMessage,
    DeleteMessage,
    InsertMessage,
    LogicalMessage,
    Message,
    OriginMessage,
    RelationColumnInfo,
    RelationMessage,
    TruncateMessage,
    TypeMessage,
    UpdateMessage,
)
from cdc.pgoutput import UnknownMessage
from tests import golden
from tests.golden import Golden
from transforms.position import LSN
from transforms.tuple_data import UNCHANGED, MalformedMessage

MESSAGES = golden.load()
SERVERS = sorted({message.server for message in MESSAGES})
BY_NAME = {(message.server, message.name): message.data for message in MESSAGES}

every_message = pytest.mark.parametrize("message", MESSAGES, ids=lambda message: f"{message.server} {message.name}")
every_server = pytest.mark.parametrize("server", SERVERS)


def decoded(server: int, name: str) -> Message:
    return pgoutput.decode(BY_NAME[server, name])


def relation(server: int, name: str) -> RelationMessage:
    message = decoded(server, name)
    assert isinstance(message, RelationMessage)
    return message


@every_server
def test_every_type_of_message_was_captured(server: int) -> None:
    assert {chr(message.data[0]) for message in MESSAGES if message.server == server} == set("BCORYIUDTM")


# What the server did


@every_server
def test_begin_and_commit_name_the_same_commit_record(server: int) -> None:
    begin, commit = decoded(server, "customers: change / begin"), decoded(server, "customers: change / commit")
    assert isinstance(begin, BeginMessage)
    assert isinstance(commit, CommitMessage)
    assert (begin.final_lsn, begin.commit_time) == (commit.commit_lsn, commit.commit_time)
    assert commit.end_lsn > commit.commit_lsn
    assert begin.xid > 0
    assert commit.flags == 0


@every_server
def test_commit_positions_rise(server: int) -> None:
    messages = [pgoutput.decode(message.data) for message in MESSAGES if message.server == server]
    lsns = [message.final_lsn for message in messages if isinstance(message, BeginMessage)]
    assert lsns == sorted(set(lsns))


@every_server
def test_a_relation_names_its_columns_without_generated_ones(server: int) -> None:
    found = relation(server, "customers: two rows / relation")
    assert (found.schema, found.name, found.replica_identity) == ("public", "customers", "d")
    mood, points = found.columns[3].type_oid, found.columns[4].type_oid
    assert found.columns == (
        RelationColumnInfo(True, "id", 20, -1),
        RelationColumnInfo(False, "name", 1043, 44),
        RelationColumnInfo(False, "tags", 1009, -1),
        RelationColumnInfo(False, "feeling", mood, -1),
        RelationColumnInfo(False, "score", points, -1),
    )
    assert decoded(server, "customers: two rows / type") == TypeMessage(mood, "public", "mood")
    assert decoded(server, "customers: two rows / type 2") == TypeMessage(points, "pg_catalog", "int4")


@every_server
def test_names_are_read_with_every_letter(server: int) -> None:
    found = relation(server, "quoted names: row / relation")
    assert (found.schema, found.name) == ("Größe", 'Order "Lines')
    assert [column.name for column in found.columns] == ["Id; DROP", "naïve ☃"]


@every_server
@pytest.mark.parametrize(
    ("table", "identity", "keys"),
    [
        ("customers: two rows", "d", ["id"]),
        ("audited: row", "f", ["id", "note", "body"]),
        ("coded: row", "i", ["code"]),
        ("logged: row", "n", []),
        ("lines: row", "d", ["order_id", "line"]),
    ],
)
def test_a_relation_tells_its_replica_identity(server: int, table: str, identity: str, keys: list[str]) -> None:
    found = relation(server, f"{table} / relation")
    assert found.replica_identity == identity
    assert [column.name for column in found.columns if column.is_key] == keys


@every_server
def test_inserts_hold_postgres_text_and_null(server: int) -> None:
    customers = relation(server, "customers: two rows / relation").relation_id
    first, second = (decoded(server, f"customers: two rows / {name}") for name in ("insert", "insert 2"))
    assert first == InsertMessage(customers, (b"1", b"Ada", b'{a,"b c",NULL}', b"calm", b"7"))
    assert second == InsertMessage(customers, (b"2", "Björn ☃".encode(), None, None, None))


@every_server
def test_null_and_unchanged_toast_stay_distinct(server: int) -> None:
    documents = relation(server, "documents: row / relation").relation_id
    change = decoded(server, "documents: unchanged TOAST / update")
    assert change == UpdateMessage(documents, None, None, (b"1", b"second", UNCHANGED))
    key_change = decoded(server, "documents: key change, unchanged TOAST / update")
    assert key_change == UpdateMessage(documents, "K", (b"1", None, None), (b"2", b"second", UNCHANGED))


@every_server
def test_a_full_identity_sends_the_old_row_with_its_large_values(server: int) -> None:
    audited = relation(server, "audited: row / relation").relation_id
    change = decoded(server, "audited: unchanged TOAST / update")
    assert change == UpdateMessage(audited, "O", (b"1", b"first", b"y" * 2100), (b"1", None, UNCHANGED))
    assert decoded(server, "audited: delete / delete") == DeleteMessage(audited, "O", (b"2", None, b"short"))


@every_server
def test_a_key_change_sends_the_old_key_of_the_identity(server: int) -> None:
    lines = relation(server, "lines: row / relation").relation_id
    change = decoded(server, "lines: key change / update")
    assert change == UpdateMessage(lines, "K", (b"1", b"2", None), (b"1", b"3", b"jam"))
    coded = relation(server, "coded: row / relation").relation_id
    assert decoded(server, "coded: other change / update") == UpdateMessage(coded, None, None, (b"2", b"one", b"n"))
    by_index = decoded(server, "coded: identity change / update")
    assert by_index == UpdateMessage(coded, "K", (None, b"one", None), (b"2", b"two", b"n"))
    assert decoded(server, "coded: delete / delete") == DeleteMessage(coded, "K", (None, b"two", None))


@every_server
def test_rows_of_partitions_arrive_under_their_root(server: int) -> None:
    root = relation(server, "measures: row / relation")
    assert root.name == "measures"
    first = decoded(server, "measures: row / insert")
    moved = decoded(server, "measures: to another partition / insert")
    assert first == InsertMessage(root.relation_id, (b"1", b"2025-06-01", b"Infinity"))
    assert moved == InsertMessage(root.relation_id, (b"1", b"2026-06-01", b"0.1"))


@every_server
def test_a_large_unchanged_key_is_only_in_the_old_tuple(server: int) -> None:
    change = decoded(server, "long_keys: unchanged key / update")
    assert isinstance(change, UpdateMessage)
    assert change.new == (UNCHANGED, b"changed")
    assert change.old_kind == "K"
    assert change.old is not None
    assert isinstance(change.old[0], bytes)
    assert len(change.old[0]) == 2100


@every_server
def test_a_truncate_lists_all_tables_and_its_options(server: int) -> None:
    lines = relation(server, "truncate of one / relation").relation_id
    parents, children = (
        relation(server, f"truncate of two / {name}").relation_id for name in ("relation", "relation 2")
    )
    assert decoded(server, "truncate of one / truncate") == TruncateMessage(False, False, (lines,))
    assert decoded(server, "truncate of two / truncate") == TruncateMessage(True, True, (parents, children))


@every_server
def test_a_logical_message_says_whether_it_belongs_to_a_transaction(server: int) -> None:
    inside = decoded(server, "transactional message / message")
    outside = decoded(server, "non-transactional message / message")
    assert isinstance(inside, LogicalMessage)
    assert isinstance(outside, LogicalMessage)
    assert (inside.transactional, inside.prefix, inside.content) == (True, "cdc", "héllo".encode())
    assert (outside.transactional, outside.prefix, outside.content) == (False, "other", b"\x00\xff")
    assert outside.lsn > inside.lsn > 0


@every_server
def test_an_origin_tells_where_a_transaction_came_from(server: int) -> None:
    message = decoded(server, "replicated from elsewhere / origin")
    assert message == OriginMessage(LSN.parse("16/B374D848"), "elsewhere")


# What is refused


@every_message
def test_every_truncation_is_refused_never_misread(message: Golden) -> None:
    for size in range(len(message.data)):
        with pytest.raises(MalformedMessage):
            pgoutput.decode(message.data[:size])


@every_message
def test_a_byte_behind_a_message_is_refused(message: Golden) -> None:
    with pytest.raises(MalformedMessage):
        pgoutput.decode(message.data + b"\0")


@every_message
def test_a_message_is_found_behind_the_header_of_its_frame(message: Golden) -> None:
    assert pgoutput.decode(b"\xff" * 25 + message.data, 25) == pgoutput.decode(message.data)


@pytest.mark.parametrize("tag", sorted(set(range(256)) - set(b"BCORYIUDTM")))
def test_an_unknown_type_of_message_is_told_apart_from_damage(tag: int) -> None:
    with pytest.raises(UnknownMessage):
        pgoutput.decode(bytes([tag]) + bytes(40))


def test_a_value_in_binary_form_is_refused_since_text_was_asked_for() -> None:
    with pytest.raises(MalformedMessage, match="unknown kind"):
        pgoutput.decode(b"I\0\0\0\1N\0\1b\0\0\0\1x")


@pytest.mark.parametrize("data", [b"I\0\0\0\1K\0\0", b"U\0\0\0\1X\0\0", b"U\0\0\0\1K\0\0K\0\0", b"D\0\0\0\1N\0\0"])
def test_a_tuple_of_the_wrong_kind_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedMessage, match="tuple of kind"):
        pgoutput.decode(data)


def refusal(data: bytes) -> str | None:
    """Why a message is refused; None where it decodes. Any other error is a failure."""
    try:
        pgoutput.decode(data)
    except MalformedMessage as error:
        return str(error)
    return None


@given(message=st.sampled_from(MESSAGES), where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_damaged_byte_gives_another_message_or_a_refusal_and_no_other_error(
    message: Golden, where: float, flip: int
) -> None:
    data = bytearray(message.data)
    data[int(where * len(data))] ^= flip
    assert refusal(bytes(data)) != ""


@given(st.sampled_from(b"BCORYIUDTM"), st.binary(max_size=64))
def test_noise_gives_a_message_or_a_refusal_and_no_other_error(tag: int, noise: bytes) -> None:
    assert refusal(bytes([tag]) + noise) != ""
