"""The golden messages are still what servers send: capturing again gives the same messages, in other positions."""

from __future__ import annotations

import pytest

from cdc import pgoutput
from cdc.demo.servers import PostgresServer
from cdc.messages import InsertMessage, LogicalMessage, Message, RelationMessage, TruncateMessage
from tests import golden
from tests.golden import capture


def shape(message: Message) -> object:
    """What two captures must agree in: no positions, transaction ids, times or OIDs."""
    if isinstance(message, RelationMessage):
        columns = [(column.is_key, column.name, column.type_modifier) for column in message.columns]
        return message.schema, message.name, message.replica_identity, columns
    if isinstance(message, InsertMessage):
        return message.new
    if isinstance(message, TruncateMessage):
        return message.cascade, message.restart_identity, len(message.relation_ids)
    if isinstance(message, LogicalMessage):
        return message.transactional, message.prefix, message.content
    return getattr(message, "old_kind", None), getattr(message, "old", None), getattr(message, "new", None)


@pytest.mark.parametrize("version", capture.VERSIONS)
def test_a_server_still_sends_the_golden_messages(version: int) -> None:
    with PostgresServer.start(version=version) as server:
        captured = list(capture.capture(server.dsn()))
    expected = [(message.name, message.data) for message in golden.load() if message.server == version]
    assert [name for name, _ in captured] == [name for name, _ in expected]
    for (name, data), (_, recorded) in zip(captured, expected, strict=True):
        assert shape(pgoutput.decode(data)) == shape(pgoutput.decode(recorded)), name
