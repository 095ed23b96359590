"""What the demo shows while it runs: a live picture in a terminal, a line every two seconds elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.highlighter import JSONHighlighter
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from cdc.demo.figures import Entry, Figures, SinkFigures, StreamFigures
from cdc.demo.verdict import Verdict

WIDEST, NARROWEST, LOWEST = 100, 76, 22
"""What the live picture can use of a terminal, and what it needs."""
_LINE_INTERVAL_SECONDS = 2.0
_LONGEST_VALUE = 50
_STATE_LINES = 2
_COLUMNS = (16, 12, 9, 11, 8)
"""Widths; the rest of the line is for a curve."""
_RAMPS = {False: "▁▂▃▄▅▆▇█", True: "_.-=+*#@"}


class View(Protocol):
    """Where figures go several times a second."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
    def show(self, figures: Figures, clock: str) -> None: ...


def view_for(console: Console) -> View:
    """The live picture where there is a terminal to draw it in."""
    can_draw = console.is_terminal and not console.is_dumb_terminal
    large = console.width >= NARROWEST and console.height >= LOWEST
    return _LiveView(console) if can_draw and large else _LineView(console)


class _LineView:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return

    def show(self, figures: Figures, clock: str) -> None:
        if time.monotonic() - self._shown_at < _LINE_INTERVAL_SECONDS:
            return
        self._shown_at = time.monotonic()
        share = figures.snapshot_share
        sinks = (
            f"{sink.name} {size(sink.behind_bytes)} {milliseconds(sink.latency_seconds)}" for sink in figures.sinks
        )
        parts = [
            f"{clock:>10}",
            f"{figures.phase}, {share:.0%}" if share < 1 else figures.phase,
            f"{figures.change_rate:,.0f} changes/s",
            f"{figures.entry_rate:,.0f} entries/s",
            f"reader {size(figures.behind_bytes)}",
            *sinks,
            *([f"({figures.trouble})"] if figures.trouble else []),
        ]
        self._console.print("  ".join(parts), soft_wrap=True, markup=False)


class _LiveView:
    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False)
        self._picture = Picture(min(console.width, WIDEST), ascii_only=console.options.ascii_only)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, figures: Figures, clock: str) -> None:
        self._live.update(self._picture.draw(figures, clock), refresh=True)


class Picture:
    """The figures as a panel of fixed height that fits a terminal of 80 columns and 24 lines."""

    def __init__(self, width: int, *, ascii_only: bool) -> None:
        self._width = width
        self._curve_width = width - 4 - sum(_COLUMNS) - len(_COLUMNS)
        self._ramp = _RAMPS[ascii_only]
        self._json = JSONHighlighter()

    def draw(self, figures: Figures, clock: str) -> RenderableType:
        """One frame."""
        head = Table.grid(expand=True)
        head.add_column(no_wrap=True, ratio=1)
        head.add_column(justify="right")
        phase = Text(figures.trouble, "bold red") if figures.trouble else Text(figures.phase, "bold")
        head.add_row(phase, Text(clock, "dim"))
        parts = [head, Rule(style="dim"), self._source(figures), "", self._streams(figures.streams), "",
                 self._sinks(figures.sinks), Rule(style="dim"), *self._newest(figures.newest)]  # fmt: skip
        title = "[bold]statecast[/]  shop [dim]▸[/] billing, shipping"
        return Panel(Group(*parts), title=title, title_align="left", width=self._width, box=box.ROUNDED)

    def _source(self, figures: Figures) -> Table:
        table = self._table("source", "changes/s", "so far", "published", "behind", "")
        table.add_row(
            Text("shop", "cyan"),
            f"{figures.change_rate:,.0f}",
            f"{figures.changes:,}",
            str(figures.published or "-"),
            size(figures.behind_bytes),
            Text(self._curve(figures.change_history), "cyan"),
        )
        return table

    def _streams(self, streams: Sequence[StreamFigures]) -> Table:
        table = self._table("stream", "entries/s", "so far", "initial snapshot")
        table.columns[3].justify = "left"
        for stream in streams:
            table.add_row(
                Text(stream.name, "magenta"), f"{stream.rate:,.0f}", f"{stream.entries:,}", self._progress(stream)
            )
        return table

    def _progress(self, stream: StreamFigures) -> RenderableType:
        if stream.run is None or stream.run.state == "pending":
            return Text("waits", "dim")
        bar = ProgressBar(1.0, stream.run.share, width=16, finished_style="green")
        row = Table.grid(padding=(0, 2))
        row.add_row(bar, f"{stream.run.rows:,} rows")
        return row

    def _sinks(self, sinks: Sequence[SinkFigures]) -> Table:
        table = self._table("replica", "", "latency", "applied", "behind", "")
        table.columns[1].justify = "left"
        for sink in sinks:
            table.add_row(
                Text(sink.name, "green"),
                Text(sink.state, "dim"),
                milliseconds(sink.latency_seconds),
                str(sink.applied or "-"),
                size(sink.behind_bytes),
                Text(self._curve(sink.latency_history), "green"),
            )
        return table

    def _newest(self, entry: Entry | None) -> list[RenderableType]:
        if entry is None:
            return [Text("no entry yet", "dim"), Text("\n" * (_STATE_LINES - 1))]
        head = Text.assemble(
            (entry.stream, "magenta"), "  ", (entry.id, "dim"), "  ", (entry.fields["op"], "bold"),
            " of some fields" if "partial" in entry.fields else "",
            "  ", entry.fields.get("key", ""), no_wrap=True, overflow="ellipsis",
        )  # fmt: skip
        state = Text(shortened(entry.fields.get("state", "")))
        self._json.highlight(state)
        return [head, _exactly(state, _STATE_LINES, self._width - 4)]

    def _table(self, *headings: str) -> Table:
        """The three tables share their columns, so that figures of a kind stand below each other."""
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim", expand=False)
        widths = [*_COLUMNS, self._curve_width]
        for number, heading in enumerate(headings):
            last = number == len(headings) - 1
            width = sum(widths[number:]) + len(widths[number:]) - 1 if last and number < 5 else widths[number]
            justify = "left" if number in (0, 5) else "right"
            table.add_column(heading, justify=justify, width=width, no_wrap=True)  # type: ignore[arg-type]
        return table

    def _curve(self, values: Sequence[float]) -> str:
        newest = list(values)[-self._curve_width :]
        top = max(newest, default=0.0)
        steps = len(self._ramp) - 1
        return "".join(self._ramp[round(value / top * steps) if top > 0 else 0] for value in newest)


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """What became of every replica table."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    for heading in ("replica", "table", "copy of", "columns", "rows", "differences"):
        table.add_column(
            heading, justify="right" if heading in ("columns", "rows", "differences") else "left", no_wrap=True
        )
    for verdict in verdicts:
        copy, style = verdict.copy, "bold red" if verdict.differences else "green"
        table.add_row(
            copy.sink,
            copy.replica_table,
            copy.source_table.removeprefix("public."),
            f"{len(copy.columns)}",
            f"{verdict.rows:,}",
            Text(f"{verdict.differences:,}", style),
        )
    return table


def shortened(state: str) -> str:
    """The JSON text of a row with long values cut."""
    if not state:
        return ""
    fields = {name: _cut(value) for name, value in json.loads(state).items()}
    return json.dumps(fields, ensure_ascii=False, separators=(", ", ": "))


def _cut(value: object) -> object:
    if isinstance(value, str) and len(value) > _LONGEST_VALUE:
        return f"{value[:12]}… ({len(value):,} characters)"
    return value


def _exactly(text: Text, lines: int, width: int) -> Text:
    wrapped = text.wrap(Console(width=width), width)[:lines]
    return Text("\n").join([*wrapped, *[Text("")] * (lines - len(wrapped))])


def size(number: int | None) -> str:
    """Bytes as a person reads them."""
    if number is None:
        return "-"
    if number < 10_000:
        return f"{number:,} B"
    return f"{number / 1e3:,.0f} kB" if number < 10_000_000 else f"{number / 1e6:,.0f} MB"


def milliseconds(seconds: float | None) -> str:
    """A latency."""
    return "-" if seconds is None else f"{seconds * 1e3:,.0f} ms"
