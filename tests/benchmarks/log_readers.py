"""How fast the log can be read at all."""

from __future__ import annotations

import subprocess

from cdc.demo.binaries import postgres_programs
from cdc.replication import ReplicationConnection
from tests.benchmarks.bench import PUBLICATION
from tests.benchmarks.contender import Contender
from tests.benchmarks.measuring import Measurement, measured
from transforms.address import Address
from transforms.position import LSN
from transforms.secret import Secret


class _Reading(Contender):
    """Reads the log and throws it away."""

    def prepare(self) -> None:
        self.bench.execute(
            self.bench.source_dsn(), f"SELECT pg_create_logical_replication_slot('{self.slot}', 'pgoutput')"
        )

    def close(self) -> None:
        self.drop_slot()


class RecvLogical(_Reading):
    """Postgres' own client, output to /dev/null."""

    name = "pg_recvlogical"

    def run(self, end: LSN) -> Measurement:
        program = postgres_programs() / "pg_recvlogical"
        arguments = ["-d", self.bench.source_dsn(), "-S", self.slot, "--start", "-f", "/dev/null", "--no-loop"]
        options = ["-o", "proto_version=1", "-o", f"publication_names={PUBLICATION}", f"--endpos={end}"]
        client: dict[str, int] = {}
        with measured(self.workload.rows, lambda: self.bench.walsender() | client) as result:
            process = subprocess.Popen([str(program), *arguments, *options])
            client["reader"] = process.pid
            assert process.wait() == 0
        return result


class BareLibpq(_Reading):
    """A loop over libpq that throws frames away: the limit of any reader in this language."""

    name = "bare libpq"

    def run(self, end: LSN) -> Measurement:
        connection = ReplicationConnection(Address("source", Secret(self.bench.source_dsn())), "bench")
        with measured(self.workload.rows, self.bench.walsender) as result:
            connection.start(self.slot, PUBLICATION)
            reached = 0
            while reached < end:
                for frame in connection.frames():
                    if frame[0] == 107:
                        reached = max(reached, int.from_bytes(frame[1:9], "big"))
                    elif frame[25] == 67:
                        reached = max(reached, int.from_bytes(frame[35:43], "big"))
                connection.wait(connection.fileno(), 0.1)
        connection.close()
        return result
