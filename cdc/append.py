"""The items of the append script, in the form in which they go over the wire to Redis.

An item is written once, as the bulk strings of the command that will carry it: formatting the fourteen words of an
entry through a client library costs a third of all that is done for a row. What is the same for a whole transaction is
sent once for it. Source of the form: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from transforms.position import Position

UPSERT_WORDS, FOUND_WORDS, DELETE_WORDS, TRANSACTION_WORDS = 5, 6, 4, 3

UPSERT_HEAD = b"$1\r\nu\r\n"
"""What an upsert without optional fields begins with; id, type, key and state follow, each a word."""

FOUND_HEAD = b"$1\r\no\r\n"
"""The same for a row that was found by a query; its origin follows behind the state."""

_WORD = b"$%d\r\n%b\r\n"
_TRANSACTION_HEAD = b"$1\r\nt\r\n"
_TRANSACTION = _TRANSACTION_HEAD + _WORD + _WORD
_ENDING = {b"$1\r\n" + code: b"$1\r\n" + code.upper() for code in (b"u", b"o", b"d", b"x")}
HEADS = (_TRANSACTION_HEAD, UPSERT_HEAD, _ENDING[UPSERT_HEAD[:5]] + UPSERT_HEAD[5:])
"""What the items of whole transactions begin with: the transaction, its upserts, its last one."""


def _words(*words: bytes) -> bytes:
    return b"".join([_WORD % (len(word), word) for word in words])


def upsert_template(type_: bytes) -> bytes:
    """Takes (size, id, size, key, size, state), of an upsert without optional fields."""
    return UPSERT_HEAD + _WORD + _words(type_).replace(b"%", b"%%") + _WORD + _WORD


def found_template(type_: bytes) -> bytes:
    """Takes (size, id, size, key, size, state, size, origin), of an upsert of a row that was found by a query."""
    return FOUND_HEAD + _WORD + _words(type_).replace(b"%", b"%%") + _WORD + _WORD + _WORD


def delete_template(type_: bytes) -> bytes:
    """Takes (size, id, size, key)."""
    return b"$1\r\nd\r\n" + _WORD + _words(type_).replace(b"%", b"%%") + _WORD


def transaction_item(ts: bytes, tx: bytes) -> bytes:
    """The transaction of the items that follow."""
    return _TRANSACTION % (len(ts), ts, len(tx), tx)


def whole_item(entry_id: bytes, words: Sequence[bytes]) -> bytes:
    """An entry with all its words; it counts `len(words) + 3` words."""
    return _words(b"x", entry_id, b"%d" % len(words), *words)


def ending(item: bytes) -> bytes:
    """The item of an entry, as that of the last one of its transaction."""
    return _ENDING[item[:5]] + item[5:]


def command(sha: str, key: str, known: str, count: int, items: Sequence[bytes]) -> bytes:
    """The EVALSHA that appends items with `count` words in all."""
    head = b"*%d\r\n" % (count + 5) + _words(b"EVALSHA", sha.encode(), b"1", key.encode(), known.encode())
    return b"".join([head, *items])


def last_id(items: Sequence[bytes]) -> Position:
    """The id of the last entry; a transaction may have been told behind it."""
    entry = next(item for item in reversed(items) if not item.startswith(b"$1\r\nt"))
    return Position.parse(split(entry)[1].decode())


def identities(items: Sequence[bytes], limit: int) -> Iterator[tuple[bytes, tuple[bytes, bytes, bytes]]]:
    """Of the first `limit` entries: id, and (type, tx, ts)."""
    ts = tx = b""
    for item in items:
        words = split(item)
        code = words[0].lower()
        if code == b"t":
            ts, tx = words[1:]
            continue
        if limit == 0:
            return
        limit -= 1
        if code == b"x":
            fields = dict(zip(words[3::2], words[4::2], strict=True))
            yield words[1], (fields.get(b"type", b""), fields.get(b"tx", b""), fields.get(b"ts", b""))
        else:
            yield words[1], (words[2], tx, ts)


def split(item: bytes) -> list[bytes]:
    """The words of an item."""
    words, at = [], 0
    while at < len(item):
        start = item.index(b"\r\n", at) + 2
        size = int(item[at + 1 : start - 2])
        words.append(item[start : start + size])
        at = start + size + 2
    return words
