"""Entries on their way to a stream, each as the XADD that appends it, in the form in which it goes over the wire.

An item is written once: formatting the words of an entry through a client library costs a third of all that is done for
a row. Source of the form: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from transforms.position import Position

_WORD = b"$%d\r\n%b\r\n"
_END = b"$3\r\nend\r\n$1\r\n1\r\n"
_UPSERT, _UPSERT_LAST, _DELETE = 15, 17, 13
"""How many words such an XADD has; each optional field adds two."""


def words(*texts: bytes) -> bytes:
    """Each as a bulk string."""
    return b"".join([_WORD % (len(text), text) for text in texts])


def command(*texts: bytes) -> bytes:
    """A command of these words."""
    return b"*%d\r\n" % len(texts) + words(*texts)


class Template:
    """The fixed parts of the items of one event in one stream."""

    __slots__ = ("delete", "label", "open", "open_last", "upsert")

    def __init__(self, key: bytes, type_: bytes) -> None:
        """`key`: of the stream in Redis; `type_`: the event's label."""
        opening = words(b"XADD", key)
        self.open = b"*%d\r\n" % _UPSERT + opening
        """What an upsert without optional fields begins with. The id follows, `label`, the key, and "state"."""
        self.open_last = b"*%d\r\n" % _UPSERT_LAST + opening
        """The same with one optional field: `end` for the last entry of its transaction, or an origin."""
        self.label = words(b"op", b"upsert", b"type", type_, b"key")
        escaped_label = self.label.replace(b"%", b"%%")
        self.upsert = self.open.replace(b"%", b"%%") + _WORD + escaped_label + _WORD + words(b"state") + _WORD + b"%b"
        """Takes (size, id, size, key, size, state, tail)."""
        deleting = words(b"op", b"delete", b"type", type_, b"key").replace(b"%", b"%%")
        self.delete = b"*%d\r\n" % _DELETE + opening.replace(b"%", b"%%") + _WORD + deleting + _WORD + b"%b"
        """Takes (size, id, size, key, tail)."""


def tail(ts: bytes, tx: bytes) -> bytes:
    """What every item of a transaction ends with."""
    return words(b"ts", ts, b"tx", tx)


def found_tail(ts: bytes, tx: bytes, origin: bytes) -> bytes:
    """The same for a row that was found by a query."""
    return words(b"ts", ts, b"tx", tx, b"origin", origin)


def whole_item(key: bytes, entry_id: bytes, fields: Sequence[bytes]) -> bytes:
    """The item of an entry with these words (field, value, ...)."""
    return command(b"XADD", key, entry_id, *fields)


def ending(item: bytes) -> bytes:
    """The item of an entry, as that of the last one of its transaction."""
    line = item.index(b"\r\n")
    return b"*%d" % (int(item[1:line]) + 2) + item[line:] + _END


def entry_id(item: bytes) -> bytes:
    """The id of its entry."""
    return split(item, 3)[2]


def last_id(items: Sequence[bytes]) -> Position:
    """The id of the last entry."""
    return Position.parse(entry_id(items[-1]).decode())


def identities(items: Sequence[bytes]) -> Iterator[tuple[bytes, tuple[bytes, bytes, bytes]]]:
    """Of each entry: id, and (type, tx, ts)."""
    for item in items:
        _, _, id_, *texts = split(item)
        fields = dict(zip(texts[::2], texts[1::2], strict=True))
        yield id_, (fields.get(b"type", b""), fields.get(b"tx", b""), fields.get(b"ts", b""))


def split(item: bytes, most: int | None = None) -> list[bytes]:
    """The words of an item, or the first of them."""
    at = item.index(b"\r\n") + 2
    found: list[bytes] = []
    while at < len(item) and len(found) != most:
        start = item.index(b"\r\n", at) + 2
        size = int(item[at + 1 : start - 2])
        found.append(item[start : start + size])
        at = start + size + 2
    return found
