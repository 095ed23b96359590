"""The text of a condition, parsed: sqlglot does it, and sees only what the subset is made of.

Words and symbols that are not of the subset, comments and all other kinds of quotes are refused before the parser runs,
and names reach it quoted, so that none of them can mean anything else than a column.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from sqlglot import Token, TokenType, exp
from sqlglot.dialects.postgres import Postgres
from sqlglot.errors import ParseError, TokenError

from transforms.condition.refusal import ConditionRefused
from transforms.names import fold, is_reserved, quote_identifier

MOST_CHARACTERS: Final = 10_000
"""Of a condition: it is stored with its run, and read again at each start."""
MOST_DEPTH: Final = 16
"""Of parentheses within parentheses, and of NOTs in a row: the parser recurses, about twenty calls each."""

_WORDS: Final = frozenset({"AND", "OR", "NOT", "IN", "BETWEEN", "IS", "NULL", "LIKE", "TRUE", "FALSE"})
_SYMBOLS: Final = frozenset({"=", "<>", "!=", "<", "<=", ">", ">=", "(", ")", ",", "-"})
_SPACE: Final = frozenset(" \t\n\r\f")
_WORD: Final = re.compile(r"[A-Za-z_\u0080-\U0010ffff][\w$\u0080-\U0010ffff]*", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?")


def parse(text: str, columns: Collection[str]) -> exp.Expr:
    """What sqlglot makes of a condition; each literal and name knows its place. Raises ConditionRefused.

    `columns`: the names that there are.
    """
    _check_text(text)
    try:
        tokens = Postgres().tokenize(text)
    except TokenError:
        raise ConditionRefused("a quoted text or name in it does not end") from None
    accepted = [_accepted(text, token, columns) for token in tokens]
    _check_gaps(text, tokens)
    _check_depth(text, accepted)
    try:
        [parsed] = Postgres().parser().parse_into(exp.Condition, accepted, text)
    except ParseError as error:
        raise _unreadable(text, accepted, error) from None
    except RecursionError:
        raise ConditionRefused("it is nested too deeply") from None
    if parsed is None:
        raise ConditionRefused("there is no condition in it")
    return parsed


def _check_text(text: str) -> None:
    if not text.strip():
        raise ConditionRefused("it is empty")
    if len(text) > MOST_CHARACTERS:
        raise ConditionRefused(f"it has more than {MOST_CHARACTERS:,} characters")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConditionRefused.at(text, error.start, error.start + 1, "what is not UTF-8") from None
    if "\0" in text:
        raise ConditionRefused.at(text, text.index("\0"), text.index("\0") + 1, "Postgres has no NUL character")


def _accepted(text: str, token: Token, columns: Collection[str]) -> Token:
    """The token as the parser may see it. Raises ConditionRefused for any that the subset does not have."""
    start, end = token.start, token.end + 1
    raw, type_ = text[start:end], token.token_type
    if raw.upper() in _WORDS or raw in _SYMBOLS:
        return token
    if type_ is TokenType.STRING and raw == "'" + token.text.replace("'", "''") + "'":
        return token
    if type_ is TokenType.NUMBER and _NUMBER.fullmatch(raw):
        return token
    if type_ is TokenType.IDENTIFIER and raw == '"' + token.text.replace('"', '""') + '"':
        name = token.text
    elif _WORD.fullmatch(raw):
        name = fold(raw)
        if is_reserved(name):
            instead = f": the column is written {quote_identifier(name)}" if name in columns else ""
            raise ConditionRefused.at(text, start, end, f"a word of SQL that conditions do not have{instead}")
    else:
        raise ConditionRefused.at(text, start, end, "conditions have nothing like this")
    return Token(TokenType.IDENTIFIER, name, token.line, token.col, token.start, token.end)


def _check_gaps(text: str, tokens: list[Token]) -> None:
    """Between tokens there may be spaces only; sqlglot leaves comments out."""
    at = 0
    for start, end in [*((token.start, token.end + 1) for token in tokens), (len(text), len(text))]:
        if not _SPACE.issuperset(text[at:start]):
            first = next(place for place in range(at, start) if text[place] not in _SPACE)
            raise ConditionRefused.at(text, first, start, "conditions have no comments")
        at = end


def _check_depth(text: str, tokens: list[Token]) -> None:
    depth = prefixes = 0
    for token in tokens:
        depth += (token.token_type is TokenType.L_PAREN) - (token.token_type is TokenType.R_PAREN)
        prefixes = prefixes + 1 if token.token_type in (TokenType.NOT, TokenType.DASH) else 0
        if max(depth, prefixes) > MOST_DEPTH:
            problem = f"more than {MOST_DEPTH} parentheses or NOTs within each other"
            raise ConditionRefused.at(text, token.start, token.end + 1, problem)


def _unreadable(text: str, tokens: list[Token], error: ParseError) -> ConditionRefused:
    """Of the token that the parser stopped at, which it tells by the line and column of its end."""
    where = error.errors[0]["line"], error.errors[0]["col"]
    for token in tokens:
        if (token.line, token.col) == where:
            return ConditionRefused.at(text, token.start, token.end + 1, "it cannot be read from here on")
    return ConditionRefused("it cannot be read")
