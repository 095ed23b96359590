"""`python run_mq_bridge.py ROUTE.json`: run a route of mq-bridge until it is killed, with the Python that has it."""

import json
import sys
from pathlib import Path

from mq_bridge import Route, init_logging  # type: ignore[import-not-found]  # not where types are checked

init_logging("warn")
Route.from_config(json.loads(Path(sys.argv[1]).read_text())).run()
