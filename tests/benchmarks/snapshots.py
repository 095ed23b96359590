"""The workload `snapshot`: rows that are there already, from the decision to copy them to the whole replica."""

from __future__ import annotations

from tests.benchmarks.bench import wait
from tests.benchmarks.measuring import Measurement, measured
from tests.benchmarks.product import EndToEnd
from tests.benchmarks.subscription import Subscription
from transforms.position import LSN


class Snapshot(EndToEnd):
    """The first start of reader and sink; the clock starts with the processes."""

    def prepare(self) -> None:
        self.make_pipeline()

    def run(self, end: LSN) -> Measurement:
        self.processes = {}
        filled = f"SELECT filled FROM cdc.replica WHERE table_name = 'replica.{self.slot}'"
        target = self.bench.target_dsn()
        with measured(self.workload.rows, self.pids) as result:
            self.processes = {"sink": self.pipeline.sink("copy"), "reader": self.pipeline.reader()}
            wait(lambda: "works on" in self.processes["sink"].output)
            wait(lambda: self.bench.execute(target, filled) == [(True,)])
        self.stop()
        [(copied,)] = self.bench.execute(target, f"SELECT count(*) FROM replica.{self.slot}")
        assert copied == self.workload.rows, f"{copied} rows in the replica, expected {self.workload.rows}"
        return result


class InitialCopy(Subscription):
    """CREATE SUBSCRIPTION with `copy_data`, until the table is ready."""

    def prepare(self) -> None:
        self.make_table()

    def run(self, end: LSN) -> Measurement:
        with measured(self.workload.rows, self.pids) as result:
            self.create()
        return result


SNAPSHOT_CONTENDERS = (Snapshot, InitialCopy)
