"""Arrays: from Postgres' text form `{1,NULL,"a b"}` to a JSON array.

Source of the form: https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache


@cache
def _tokens(delimiter: bytes) -> re.Pattern[bytes]:
    escaped = re.escape(delimiter)
    return re.compile(rb'[{}]|%b|"(?:[^"\\]|\\.)*"|[^{}"%b]+' % (escaped, escaped), re.DOTALL)


_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)


def to_json(text: bytes, element: Callable[[bytes], bytes], delimiter: bytes) -> bytes | None:
    """The JSON text of an array, each element written by `element`; None where JSON has no such array.

    None is returned for arrays whose lower bounds are not 1 (`[0:2]={...}`), which a JSON array would lose.
    """
    if text[:1] != b"{":
        return None
    parts: list[bytes] = []
    for token in _tokens(delimiter).findall(text):
        match token[:1]:
            case b"{":
                parts.append(b"[")
            case b"}":
                parts.append(b"]")
            case b'"':
                parts.append(element(_ESCAPE.sub(rb"\1", token[1:-1])))
            case first if first == delimiter:
                parts.append(b",")
            case _:
                parts.append(b"null" if token == b"NULL" else element(token))
    return b"".join(parts)
