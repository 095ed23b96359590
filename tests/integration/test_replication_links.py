"""What a connection tells of the link to the source."""

from __future__ import annotations

from contextlib import closing

from cdc.demo.servers import PostgresServer
from cdc.replication import ReplicationConnection
from transforms.address import Address
from transforms.secret import Secret


def holds_little(dsn: str) -> bool:
    with closing(ReplicationConnection(Address("source", Secret(dsn)), "test")) as made:
        return made.holds_little


def test_a_unix_socket_is_told_from_tcp() -> None:
    server = PostgresServer.start()
    try:
        assert not holds_little(server.dsn())
        assert holds_little(server.dsn(unix=True))
    finally:
        server.stop()
