"""One of the writers of the workload `latency`: `python -m tests.benchmarks.commit_rate DSN FIRST_ID RATE SECONDS`.

Commits one row a transaction at a steady rate and prints, for each, the moment at which the commit returned, in
nanoseconds of the machine's monotonic clock. It does not catch up in a rush: what comes late stays late.
"""

from __future__ import annotations

import sys
import time

import psycopg

from tests.benchmarks.workloads import ONE_ROW


def main(dsn: str, first_id: int, rate: float, seconds: float) -> None:
    returned: list[int] = []
    with psycopg.connect(dsn, autocommit=True) as connection:
        began = time.monotonic()
        for number in range(int(rate * seconds)):
            pause = began + number / rate - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            connection.execute(ONE_ROW, {"id": first_id + number}, prepare=True)
            returned.append(time.monotonic_ns())
    print("\n".join(map(str, returned)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))
