"""The operator's log: one JSON object a line for machines, or plain text for people.

Secrets are never passed to it (I7).
"""

from __future__ import annotations

import datetime
import json
import logging
import sys


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds")
        line = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        job = getattr(record, "job", None)
        if job:
            line["job"] = job
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure_logging(level: str, form: str) -> None:
    """Send everything to stderr; Kopf's own chatter only from WARNING on, unless DEBUG is asked for."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _Json() if form == "json" else logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    quiet = logging.DEBUG if level == "DEBUG" else logging.WARNING
    for name in ("kopf", "aiohttp.access", "asyncio"):
        logging.getLogger(name).setLevel(quiet)
    if level != "DEBUG":  # a line for each attempt of each watch: what is away is said once, by our own list and lease
        logging.getLogger("kopf._cogs.clients").setLevel(logging.CRITICAL)
