"""Strategies for literals: text that Postgres' input functions may read. The server is asked which it does read."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st

Text = st.SearchStrategy[str]

_AWKWARD = "{}()[]<>,;:\"'\\ \t\n\r\b\f\v%$&|!*/-+.0123456789abNULnulxé\u2028\ufeff🦆"
_ANY = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
texts: Final[Text] = st.one_of(
    st.text(_AWKWARD, max_size=8), st.text(_ANY, max_size=6), st.sampled_from(["NULL", "null"])
)


def numbers(low: int, high: int) -> Text:
    """Integers, more often at the ends than elsewhere."""
    return st.one_of(st.integers(low, high), st.sampled_from([low, high, 0])).map(str)


floats: Final[Text] = st.floats().map(repr)
small_floats: Final[Text] = st.floats(width=32).map(repr)
_digits = st.text("0123456789", max_size=25)
numerics: Final[Text] = st.one_of(
    st.builds("{}0{}.{}e{}".format, st.sampled_from(["", "-"]), _digits, _digits, st.integers(-40, 40)),
    st.builds("{}e{}".format, st.integers(-99, 99), st.integers(-16400, 131100)),
    st.builds("{}0{}.{}".format, st.sampled_from(["", "-"]), _digits, _digits),
    st.sampled_from(["NaN", "Infinity", "-Infinity", "0.000"]),
)


def decimals(digits: int, scale: int) -> Text:
    """Numbers that a numeric column of few digits takes."""
    bound = 10**digits - 1
    return st.integers(-bound, bound).map(lambda number: f"{number}e{-scale}")


_two = st.integers(0, 60).map("{:02}".format)
_times = st.one_of(
    st.builds("{:02}:{}:{}.{:06}".format, st.integers(0, 23), _two, _two, st.integers(0, 999_999)),
    st.sampled_from(["00:00:00", "24:00:00", "23:59:60"]),
)
_zones = st.builds("{}{:02}:{}:{}".format, st.sampled_from("+-"), st.integers(0, 15), _two, _two)


def _dates(last_year: int, times: Text | None) -> Text:
    year = st.one_of(st.integers(1, 9999), st.integers(9990, last_year))
    month, day = st.integers(1, 12).map("{:02}".format), st.integers(1, 31).map("{:02}".format)
    days, era = st.builds("{:04}-{}-{}".format, year, month, day), st.sampled_from(["", "", "", " BC"])
    whole = st.builds("{}{}".format, days, era) if times is None else st.builds("{} {}{}".format, days, times, era)
    return st.one_of(whole, whole, st.sampled_from(["infinity", "-infinity"]))


dates: Final = _dates(5_874_897, None)
timestamps: Final = _dates(294_276, _times)
timestamps_with_zone: Final = _dates(294_276, st.builds("{}{}".format, _times, _zones))
_amount = st.one_of(st.just(0), st.integers(-99, 99), st.integers(-(2**31), 2**31 - 1))
intervals: Final[Text] = st.one_of(
    st.builds("{} months {} days {} microseconds".format, _amount, _amount, st.integers(-(2**63), 2**63 - 1)),
    st.builds("{} months {} days {} microseconds".format, _amount, _amount, _amount),
    st.sampled_from(["infinity", "-infinity", "0"]),
)

_space = st.sampled_from(["", "", "", " ", "\n", "\t \r"])
_escapes = st.one_of(
    st.integers(0, 0xFFFF).map("\\u{:04x}".format),
    st.integers(0xD800, 0xDFFF).map("\\u{:04X}".format),
    st.sampled_from(["\\u0000", "\\ud83e\\udd86", "\\\\", '\\"', "\\/", "\\b", "\\n"]),
)
_json_characters = st.characters(min_codepoint=0x20, exclude_characters='"\\', exclude_categories=["Cs"])
_json_strings = st.lists(st.one_of(_json_characters, _escapes), max_size=5).map(lambda parts: f'"{"".join(parts)}"')
_json_numbers = st.one_of(st.integers().map(str), st.sampled_from(["-0", "1E400", "0.10", "1e-7", "9007199254740993"]))
_json_leaves = st.one_of(st.sampled_from(["null", "true", "{}", "[]", '"null"']), _json_numbers, _json_strings)


def _json_nodes(inner: Text) -> Text:
    spaced = st.builds("{}{}{}".format, _space, inner, _space)
    keys = st.one_of(_json_strings, st.sampled_from(['"a"', '""']))
    fields = st.builds("{}:{}".format, keys, spaced)
    return st.one_of(
        st.lists(spaced, max_size=3).map(lambda items: f"[{','.join(items)}]"),
        st.lists(fields, max_size=3).map(lambda items: f"{{{','.join(items)}}}"),
    )


jsons: Final[Text] = st.builds("{}{}{}".format, _space, st.recursive(_json_leaves, _json_nodes, max_leaves=4), _space)

_hex = st.binary(max_size=12).map(bytes.hex)
_octet = st.integers(0, 255)
_ip4 = st.builds("{}.{}.{}.{}".format, _octet, _octet, _octet, _octet)
_ip6 = st.ip_addresses(v=6).map(str)
inets: Final[Text] = st.one_of(
    _ip4,
    _ip6,
    st.builds("{}/{}".format, _ip4, st.integers(0, 32)),
    st.builds("{}/{}".format, _ip6, st.integers(0, 128)),
)
cidrs: Final[Text] = st.one_of(
    st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str), _octet.map("{}.0.0.0/8".format)
)
points: Final[Text] = st.builds("({},{})".format, floats, floats)
_point_lists = st.lists(points, min_size=1, max_size=3).map(",".join)
_words = st.builds(
    "'{}'{}".format,
    texts.filter(bool).map(lambda word: word.replace("\\", "\\\\").replace("'", "''")),
    st.sampled_from(["", ":1A", ":2,16383B"]),
)
lsns: Final[Text] = st.builds("{:X}/{:X}".format, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
bits: Final[Text] = st.text("01", max_size=20)


def quoted(text: str) -> str:
    """An element of an array, a bound of a range, or a field of a composite."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@st.composite
def arrays(draw: st.DrawFn, elements: Text, delimiter: str = ",") -> str:
    """Array literals of up to three dimensions, with NULLs, and sometimes with lower bounds of their own."""
    shape = draw(st.sampled_from([(0,), (1,), (3,), (2, 2), (1, 2), (1, 1, 2)]))
    bounds = draw(st.sampled_from(["", "", "own"])) and [draw(st.integers(-2, 3)) for _ in shape]

    def level(lengths: tuple[int, ...]) -> str:
        if not lengths:
            text = draw(st.one_of(elements, elements, st.none()))
            return "NULL" if text is None else quoted(text)
        return "{" + delimiter.join(level(lengths[1:]) for _ in range(lengths[0])) + "}"

    prefix = "".join(f"[{low}:{low + size - 1}]" for low, size in zip(bounds, shape, strict=True)) if bounds else ""
    return level(shape) if not prefix or shape == (0,) else f"{prefix}={level(shape)}"


def ranges(bounds: Text) -> Text:
    """Range literals; where the lower bound is above the upper one the server refuses."""
    bound = st.one_of(bounds.map(quoted), bounds.map(quoted), st.just(""))
    some = st.builds("{}{},{}{}".format, st.sampled_from("[("), bound, bound, st.sampled_from("])"))
    half = st.one_of(bounds.map(lambda text: f"[{quoted(text)},)"), bounds.map(lambda text: f"(,{quoted(text)}]"))
    return st.one_of(some, half, bounds.map(lambda text: f"[{quoted(text)},{quoted(text)}]"), st.just("empty"))


def multiranges(bounds: Text) -> Text:
    """Multirange literals."""
    return st.lists(ranges(bounds), max_size=3).map(lambda parts: f"{{{','.join(parts)}}}")


def composites(*fields: Text) -> Text:
    """Composite literals, with NULL fields."""
    parts = [st.one_of(field.map(quoted), field.map(quoted), st.just("")) for field in fields]
    return st.tuples(*parts).map(lambda texts_: f"({','.join(texts_)})")


_small, _big = numbers(-(2**31), 2**31 - 1), numbers(-(2**63), 2**63 - 1)
_snapshots = st.builds(
    lambda low, more: f"{low}:{low + len(more) + 1}:" + ",".join(str(low + n) for n, keep in enumerate(more) if keep),
    st.integers(1, 2**62),
    st.lists(st.booleans(), max_size=4),
)

LITERALS: Final[dict[str, dict[str, Text]]] = {
    "plain": {
        "boolean": st.sampled_from(["t", "f"]),
        "smallint": numbers(-(2**15), 2**15 - 1),
        "integer": _small,
        "bigint": _big,
        "oid": numbers(0, 2**32 - 1),
        "xid": numbers(0, 2**32 - 1),
        "cid": numbers(0, 2**32 - 1),
        "xid8": numbers(0, 2**64 - 1),
        "tid": st.builds("({},{})".format, numbers(0, 2**32 - 1), numbers(0, 65535)),
        "pg_lsn": lsns,
        "uuid": st.uuids().map(str),
        "real": small_floats,
        "double precision": floats,
        "numeric": numerics,
        "numeric(10,2)": decimals(10, 2),
        "numeric(3,-2)": decimals(3, -2),
        "numeric(2,5)": decimals(2, 5),
        "money": st.integers(-(2**63), 2**63 - 1).map(
            lambda cents: f"{'-' * (cents < 0)}{abs(cents) // 100}.{abs(cents) % 100:02}"
        ),
    },
    "text": {
        "text": texts,
        "character varying": texts,
        "character varying(3)": texts,
        "character(4)": texts,
        "bpchar": texts,
        "name": texts,
        '"char"': texts,
        "refcursor": texts,
        "bytea": _hex.map("\\x{}".format),
        "mood": st.sampled_from(["ok", "", 'a "b" \\']),
        "code": texts,
        "tsvector": st.lists(_words, max_size=3).map(" ".join),
        "xml": texts.map(lambda text: f"<a><![CDATA[{text}]]></a>"),
        "tsquery": st.lists(_words.map(lambda word: word.split(":")[0]), max_size=3).map(" & ".join),
        "jsonpath": _json_strings.map("$.{}".format),
        "information_schema.character_data": texts,
    },
    "json": {
        "json": jsons,
        "jsonb": jsons,
        "document": jsons,
        "json[]": arrays(jsons),
        "jsonb[]": arrays(jsons),
        "document[]": arrays(jsons),
        "pair": composites(texts, arrays(numerics), jsons),
        "pair[]": arrays(composites(texts, arrays(numerics), jsons)),
    },
    "time": {
        "date": dates,
        "time": _times,
        "timetz": st.builds("{}{}".format, _times, _zones),
        "timestamp": timestamps,
        "timestamptz": timestamps_with_zone,
        "interval": intervals,
        "timestamp(3)": timestamps,
        "time(0)": _times,
        "date[]": arrays(dates),
        "timestamp[]": arrays(timestamps),
        "timestamptz[]": arrays(timestamps_with_zone),
        "interval[]": arrays(intervals),
        "tsrange": ranges(timestamps),
        "tstzrange": ranges(timestamps_with_zone),
        "daterange": ranges(dates),
        "tstzmultirange": multiranges(timestamps_with_zone),
    },
    "network and geometry": {
        "inet": inets,
        "cidr": cidrs,
        "macaddr": st.binary(min_size=6, max_size=6).map(bytes.hex),
        "macaddr8": st.binary(min_size=8, max_size=8).map(bytes.hex),
        "point": points,
        "lseg": st.builds("[{},{}]".format, points, points),
        "box": st.builds("{},{}".format, points, points),
        "path": _point_lists.map("[{}]".format),
        "polygon": _point_lists.map("({})".format),
        "line": st.builds("{{{},{},{}}}".format, floats, floats, floats),
        "circle": st.builds("<{},{}>".format, points, floats),
        "bit(5)": st.text("01", min_size=5, max_size=5),
        "varbit": bits,
        "int2vector": st.lists(numbers(-(2**15), 2**15 - 1), max_size=3).map(" ".join),
        "oidvector": st.lists(numbers(0, 2**32 - 1), max_size=3).map(" ".join),
        "pg_snapshot": _snapshots,
        "box[]": arrays(st.builds("{},{}".format, points, points), ";"),
        "point[]": arrays(points),
        "int2vector[]": arrays(st.just("1 2")),
        "inet[]": arrays(inets),
        "varbit[]": arrays(bits),
    },
    "arrays and ranges": {
        "boolean[]": arrays(st.sampled_from("tf")),
        "bigint[]": arrays(_big),
        "numeric[]": arrays(numerics),
        "double precision[]": arrays(floats),
        "real[]": arrays(small_floats),
        "text[]": arrays(texts),
        '"char"[]': arrays(texts),
        "bytea[]": arrays(_hex.map("\\x{}".format)),
        "mood[]": arrays(st.sampled_from(["ok", "NULL", ""])),
        "ages": arrays(numbers(0, 150)),
        "code[]": arrays(texts),
        "int4range": ranges(_small),
        "int8range": ranges(_big),
        "numrange": ranges(numerics),
        "textrange": ranges(texts),
        "int8multirange": multiranges(_big),
        "nummultirange": multiranges(numerics),
        "textmultirange": multiranges(texts),
        "numrange[]": arrays(ranges(numerics)),
        "textrange[]": arrays(ranges(texts)),
        "nest": composites(
            composites(texts, st.just("{1}"), jsons), arrays(composites(texts, st.just(""), jsons)), st.just("ok")
        ),
    },
}
"""Group -> type -> strategy."""
