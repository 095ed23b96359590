"""The frames of streaming replication: what lies inside CopyData between a walsender and its client.

Source: https://www.postgresql.org/docs/current/protocol-replication.html
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from transforms.position import LSN
from transforms.tuple_data import MalformedMessage

XLOG_DATA, KEEPALIVE, STATUS_UPDATE = b"wkr"
XLOG_DATA_HEADER_BYTES = 25
"""The message lies in an XLogData frame behind its tag, two LSNs and the server's clock."""

_KEEPALIVE = struct.Struct("!cQqB")
_STATUS_UPDATE = struct.Struct("!cQQQqB")


@dataclass(frozen=True, slots=True)
class PrimaryKeepalive:
    """The server's sign of life. Between transactions, all before `wal_end` has been sent."""

    wal_end: LSN
    reply_requested: bool


def decode_keepalive(frame: bytes) -> PrimaryKeepalive:
    """Decode a frame whose first byte is KEEPALIVE. Raises MalformedMessage."""
    if len(frame) != _KEEPALIVE.size:
        raise MalformedMessage(f"a keepalive of {len(frame)} bytes (expected {_KEEPALIVE.size})")
    _, wal_end, _, reply = _KEEPALIVE.unpack(frame)
    return PrimaryKeepalive(LSN(wal_end), bool(reply))


def encode_status_update(
    received: LSN, confirmed: LSN, microseconds_since_2000: int, *, reply_requested: bool = False
) -> bytes:
    """A StandbyStatusUpdate: `received` is progress on the wire, `confirmed` lets the server forget what is before."""
    return _STATUS_UPDATE.pack(b"r", received, confirmed, confirmed, microseconds_since_2000, reply_requested)
