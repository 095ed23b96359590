"""The names of a pipeline's keys in Redis."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one pipeline; every one begins with `<pipeline>:`."""

    pipeline: str

    @property
    def meta(self) -> str:
        """Hash: where the pipeline stands (epoch, incarnation, published, last ids ...)."""
        return f"{self.pipeline}:meta"

    @property
    def schema(self) -> str:
        """Hash: `customer.v1` -> schema document."""
        return f"{self.pipeline}:schema"

    @property
    def requests(self) -> str:
        """Stream of what the reader is asked to do."""
        return f"{self.pipeline}:requests"

    @property
    def runs(self) -> str:
        """Hash: snapshot run id -> its state, kept until the next run of the event."""
        return f"{self.pipeline}:status:snapshots"

    @property
    def parked(self) -> str:
        """Hash: `customer.v1 {"id":1}` -> a row that a hook failed on; `customer.v1` -> how many more there are."""
        return f"{self.pipeline}:status:parked"

    @property
    def snapshots_paused(self) -> str:
        """String: since when snapshots are paused (seconds since 1970); empty where they are not."""
        return f"{self.pipeline}:status:paused"

    @property
    def reader_status(self) -> str:
        """String: the reader's state as JSON."""
        return f"{self.pipeline}:status:reader"

    @property
    def asked(self) -> str:
        """String: written before Redis is asked how safe everything before it is; when (seconds since 1970)."""
        return f"{self.pipeline}:status:asked"

    def standby_status(self, name: str) -> str:
        """String that expires: a reader that waits for the slot, as JSON."""
        return f"{self.pipeline}:status:standby:{name}"

    def sink_status(self, sink: str) -> str:
        """String: a sink's state as JSON."""
        return f"{self.pipeline}:status:sink:{sink}"

    @property
    def passed(self) -> str:
        """Hash: `<sink> <stream>` of a sink that was trimmed past -> the first entry that was left."""
        return f"{self.pipeline}:status:passed"

    @property
    def trails(self) -> str:
        """Hash: stream key -> where it ended, and how many entries had been added by then, at times past."""
        return f"{self.pipeline}:status:trails"

    def stream(self, stream: str, epoch: int) -> str:
        """The stream's key, which changes its name from the second epoch on."""
        return f"{self.pipeline}:{stream}" + (f"@{epoch}" if epoch > 1 else "")

    def shut(self, stream: str, epoch: int) -> str:
        """String: how a stream was that is shut; never there outside of a transaction of the reader's."""
        return f"{self.stream(stream, epoch)}:shut"

    @property
    def everything(self) -> str:
        """A pattern that matches all of the pipeline's keys."""
        return f"{self.pipeline}:*"
