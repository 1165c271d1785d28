"""Reports what the trainer knows, without ever slowing or failing it: full snapshots in the background, latest only.

A report replaces any earlier one, so a lost, late or repeated report does no harm, and only the newest waits while the
operator is away. No secret's value leaves the process (I7): every free text passes `redact`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import math
import os
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from finetune_api.exits import JobError, Reason
from finetune_api.report import Problem, Report, Stage
from finetune_api.run import Reporting, RunConfig
from finetune_api.status import CHECKPOINTS, DataProfile
from finetune_api.text import clip
from finetune_trainer.failures.redact import redact
from finetune_trainer.report.history import History

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 5.0
CLOSE_SECONDS = 10.0
_WAITS_FOR_INTERVAL = {"progress", "seconds"}
_WORKERS_AFTER_PREPARE = 1 << 50
"""The prepare step and the workers share an attempt number; the workers' sequence starts above any of the prepare
step's.
"""


class Reporter:
    """Sends the latest snapshot every interval, and at once when anything but progress changed. Safe from any thread.

    `stage` is where the process starts: PREPARING for the prepare step, LOADING for rank 0 of the workers.
    """

    def __init__(self, config: RunConfig, *, stage: Stage = Stage.LOADING, snapshot_file: Path | None = None) -> None:
        self._to = config.reporting
        self._snapshot_file = snapshot_file
        self._history = History()
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._offset = 0 if stage is Stage.PREPARING else _WORKERS_AFTER_PREPARE
        self._now = True  # something waits to be sent at once
        self._closing = False
        self._deadline = math.inf
        self._delivered = True
        self._sent = -1
        self._troubled: set[str] = set()
        if self._to.url and urlsplit(self._to.url).scheme != "https":
            raise JobError(
                Reason.INVALID_CONFIG, "reports carry a token and go over https:// only", field="reporting.url"
            )
        self._report = Report(
            job_id=config.job.id,
            attempt=config.attempt,
            sequence=self._offset + _milliseconds(),
            time=time.time(),
            stage=stage,
        )
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)
        self._thread.start()

    @property
    def snapshot(self) -> Report:
        """The latest snapshot."""
        with self._lock:
            return self._report

    def update(self, **fields: Any) -> None:
        """Replace these fields of the snapshot (the contract's `Report`); everything but progress and seconds is sent
        at once.
        """
        unknown = set(fields) - set(Report.model_fields)
        assert not unknown, f"Report has no {sorted(unknown)}"
        fields = {name: _fit(name, value) for name, value in fields.items()}
        with self._wake:
            changed = {name for name, value in fields.items() if getattr(self._report, name) != value}
            self._replace(fields)
            self._now = self._now or bool(changed - _WAITS_FOR_INTERVAL)
            self._wake.notify_all()

    def point(self, step: int, *, loss: float | None = None, metrics: Mapping[str, float] | None = None) -> None:
        """Add to the history; a point with metrics is an evaluation."""
        with self._lock:
            self._history.add(step, loss, metrics)
            self._replace({})

    def flush(self) -> None:
        """Send the latest snapshot at once (in the background)."""
        with self._wake:
            self._now = True
            self._wake.notify_all()

    def history_state(self) -> dict[str, Any]:
        """The history as JSON, for the checkpoint."""
        with self._lock:
            return self._history.to_json()

    def restore_history(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's history: what came after it is forgotten, so no step appears twice (I3)."""
        with self._lock:
            self._history = History.from_json(state)
            self._replace({})

    def close(self, final: bool = True) -> bool:
        """Send the last snapshot and stop; tries for at most CLOSE_SECONDS when `final`.

        Returns whether it got through.
        """
        with self._wake:
            if not self._closing:
                self._closing = True
                self._deadline = time.monotonic() + (CLOSE_SECONDS - 1.0 if final else 0.0)
                self._now = final
                self._wake.notify_all()
        self._thread.join(CLOSE_SECONDS if final else 0.1)
        with self._lock:
            return self._delivered and self._sent == self._report.sequence

    def _replace(self, fields: dict[str, Any]) -> None:
        """Make the next snapshot; the lock is held."""
        sequence = max(self._report.sequence + 1, self._offset + _milliseconds())
        fields = {"history": self._history.points(), **fields, "sequence": sequence, "time": time.time()}
        kept = {name: getattr(self._report, name) for name in Report.model_fields if name not in fields}
        self._report = Report(**kept, **fields)

    def _run(self) -> None:
        last = -math.inf
        while True:
            with self._wake:
                while not (self._now or self._closing):
                    left = last + self._to.interval_seconds - time.monotonic()
                    if left <= 0:
                        break
                    self._wake.wait(left)
                self._now, closing = False, self._closing
                if self._delivered and self._sent == self._report.sequence:
                    if closing:
                        return
                    self._replace({})  # a sign of life, although nothing changed
                report = self._report
            last = time.monotonic()
            delivered = self._send(report)
            with self._wake:
                self._delivered, self._sent = delivered, report.sequence
                if closing:
                    newest = report.sequence == self._report.sequence
                    if (delivered and newest) or time.monotonic() >= self._deadline:
                        return
                    self._wake.wait(0.0 if not newest else 0.3)

    def _send(self, report: Report) -> bool:
        body = json.dumps(report.to_json(), separators=(",", ":"))
        delivered = self._attempt("file", lambda: _append(self._to, body))
        delivered &= self._attempt("snapshot", lambda: _replace_file(self._snapshot_file, body))
        delivered &= self._attempt("url", lambda: _post(self._to, body.encode(), self._deadline))
        return delivered

    def _attempt(self, sink: str, send: Callable[[], None]) -> bool:
        """Log once when a sink stops working and once when it works again: the caller is never disturbed."""
        try:
            send()
        except Exception as error:
            if sink not in self._troubled:
                self._troubled.add(sink)
                log.warning(
                    "reports do not get through to the %s, training goes on: %s",
                    sink,
                    redact(f"{type(error).__name__}: {error}"),
                )
            return False
        if sink in self._troubled:
            self._troubled.discard(sink)
            log.info("reports get through to the %s again", sink)
        return True


def _milliseconds() -> int:
    return int(time.time() * 1000)


def _append(to: Reporting, body: str) -> None:
    if to.file:
        with open(to.file, "a") as lines:
            lines.write(body + "\n")


def _replace_file(path: Path | None, body: str) -> None:
    if path is not None:
        new = path.with_name(path.name + ".new")
        new.write_text(body)
        os.replace(new, path)


def _post(to: Reporting, body: bytes, deadline: float) -> None:
    """One POST on a connection of its own: token and CA are read anew, proxies of the environment are not used."""
    if not to.url:
        return
    url = urlsplit(to.url)
    timeout = max(0.5, min(TIMEOUT_SECONDS, deadline - time.monotonic()))
    headers = {"Content-Type": "application/json"}
    if to.token_file:
        headers["Authorization"] = f"Bearer {Path(to.token_file).read_text().strip()}"
    context = ssl.create_default_context(cafile=to.ca_file)
    connection = http.client.HTTPSConnection(url.hostname or "", url.port or 443, timeout=timeout, context=context)
    with contextlib.closing(connection):
        connection.request("POST", (url.path or "/") + (f"?{url.query}" if url.query else ""), body, headers)
        answer = connection.getresponse()
        if not 200 <= answer.status < 300:
            raise ConnectionError(
                f"the report server answered {answer.status}: {clip(answer.read(512).decode(errors='replace'), 256)}"
            )


def _fit(name: str, value: Any) -> Any:
    """Bring a value within the contract's bounds: non-finite numbers out, lists and texts cut, secrets redacted."""
    if name in ("evaluation", "test", "seconds") and value is not None:
        return dict([(clip(k, 64), float(v)) for k, v in value.items() if math.isfinite(v)][:12])
    if name == "checkpoints":
        return tuple(value)[:CHECKPOINTS]
    if isinstance(value, Problem):
        return value.model_copy(
            update={"message": clip(redact(value.message), 1024), "hint": clip(redact(value.hint), 512)}
        )
    if isinstance(value, DataProfile):
        findings = tuple(f.model_copy(update={"message": clip(redact(f.message), 384)}) for f in value.findings)
        return value.model_copy(update={"findings": findings})
    return value
