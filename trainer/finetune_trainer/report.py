"""Say what the trainer knows, without ever slowing or failing it: full snapshots in the background, latest only.

A report replaces any earlier one, so a lost, late or repeated report does no harm, and only the newest waits while the
operator is away. The Outcome (the launcher's last word, `finish`) carries the end result where no report got through.
No secret's value leaves the process (I7): every free text passes `scrub`.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import logging
import math
import os
import re
import ssl
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from finetune_api.exits import COMPLETE, EXITS, JobError, Reason
from finetune_api.report import Outcome, Problem, Report, Stage
from finetune_api.run import Reporting, RunConfig
from finetune_api.status import CHECKPOINTS, DataProfile
from finetune_trainer.history import History

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 5.0
CLOSE_SECONDS = 10.0
_WAITS_FOR_INTERVAL = {"progress", "seconds"}
_WORKERS_AFTER_PREPARE = 1 << 50
"""The prepare step and the workers share an attempt number; the workers' sequence starts above any of the prepare step's."""


# ---------------------------------------------------------------- no secrets

_SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|PRIVATE_?KEY|API_?KEY|ACCESS_KEY", re.IGNORECASE)
_USER_INFO = re.compile(r"(?<=://)[^/\s@:]+:[^/\s@]+(?=@)")
_BEARER = re.compile(r"(?i)(?<=bearer )[A-Za-z0-9._~+/=-]{8,}")
_SHORTEST_SECRET = 6
"""Shorter values cannot be told from ordinary words."""


def scrub(text: str) -> str:
    """`text` without the values of secret environment variables, bearer tokens, and user:password in URLs.

    Secret are the variables whose names say so, and those that FINETUNE_SECRET_ENV lists (the operator names every
    variable that comes from a Secret there).
    """
    named = {name.strip() for name in os.environ.get("FINETUNE_SECRET_ENV", "").split(",")}
    values = {
        v
        for k, v in os.environ.items()
        if (k in named or _SECRET_NAME.search(k)) and k != "FINETUNE_SECRET_ENV" and len(v) >= _SHORTEST_SECRET
    }
    forms = {form for v in values for form in (v, quote(v, safe=""), json.dumps(v)[1:-1], repr(v)[1:-1])}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "[secret]")
    return _BEARER.sub("[secret]", _USER_INFO.sub("[secret]", text))


def clip(text: str, limit: int) -> str:
    """At most `limit` characters, with an ellipsis where something was cut."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


# ---------------------------------------------------------------- the last word


def problem_for(error: BaseException, rank: int | None = None) -> Problem:
    """What went wrong, in the contract's words and within its bounds."""
    if isinstance(error, JobError):
        reason, message, hint, field = error.reason, error.message, error.hint, error.field
    else:
        reason, field = _reason_of(error), None
        where = traceback.extract_tb(error.__traceback__)
        place = f" (in {Path(where[-1].filename).name}:{where[-1].lineno})" if where else ""
        message, hint = f"{type(error).__name__}: {error}{place}", EXITS[reason].hint
    return Problem(
        reason=reason, message=clip(scrub(message), 1024), hint=clip(scrub(hint), 512), field=field and clip(field, 128), rank=rank,
    )  # fmt: skip


def _reason_of(error: BaseException) -> Reason:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Reason.DISK_FULL
    if type(error).__name__ == "OutOfMemoryError":  # torch's, named so that torch need not be imported here
        return Reason.OUT_OF_MEMORY
    return Reason.INTERNAL_ERROR


def outcome_for(
    config: RunConfig, error: BaseException | None, snapshot: Report | None, rank: int | None = None
) -> Outcome:
    """The Outcome of a process that ends with `error` (None: complete), with what the last snapshot knows."""
    problem = problem_for(error, rank) if error is not None else None
    code = COMPLETE if problem is None else (EXITS[problem.reason].code or EXITS[Reason.INTERNAL_ERROR].code or 44)
    known: dict[str, Any] = {}
    if snapshot is not None:
        known = {
            name: getattr(snapshot, name)
            for name in ("resumed_from_step", "best", "test", "output", "resolved", "data", "seconds")
        }
        known["step"] = snapshot.progress.step if snapshot.progress else None
        known["checkpoint"] = snapshot.checkpoints[0] if snapshot.checkpoints else None
    return Outcome(job_id=config.job.id, attempt=config.attempt, exit_code=code, problem=problem, **known)


def write_outcome(config: RunConfig, outcome: Outcome) -> None:
    """Write the termination message. The kubelet's file exists already and cannot be replaced, so it is written in place."""
    if config.reporting.termination_file:
        try:
            Path(config.reporting.termination_file).write_text(outcome.to_message())
        except OSError as error:
            log.warning("the outcome could not be written to %s: %s", config.reporting.termination_file, error)


def finish(config: RunConfig, error: BaseException | None, snapshot: Report | None, rank: int | None = None) -> Outcome:
    """Make the Outcome and write it; the process then exits with its exit_code."""
    outcome = outcome_for(config, error, snapshot, rank)
    write_outcome(config, outcome)
    return outcome


def load_snapshot(path: Path) -> Report | None:
    """The last snapshot that a Reporter with this `snapshot_file` left, or None."""
    try:
        return Report.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None


# ---------------------------------------------------------------- reports while it runs


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
        """Replace these fields of the snapshot (the contract's `Report`); everything but progress and seconds is sent at once."""
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
        """Send the last snapshot and stop; tries for at most CLOSE_SECONDS when `final`. Returns whether it got through."""
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

    def _attempt(self, sink: str, send: Any) -> bool:
        """Warn once when a way stops working and say once when it works again: the caller is never disturbed."""
        try:
            send()
        except Exception as error:
            if sink not in self._troubled:
                self._troubled.add(sink)
                log.warning(
                    "reports do not get through to the %s, training goes on: %s",
                    sink,
                    scrub(f"{type(error).__name__}: {error}"),
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
    """Bring a value within the contract's bounds: non-finite numbers out, lists and texts cut, secrets scrubbed."""
    if name in ("evaluation", "test", "seconds") and value is not None:
        return dict([(clip(k, 64), float(v)) for k, v in value.items() if math.isfinite(v)][:12])
    if name == "checkpoints":
        return tuple(value)[:CHECKPOINTS]
    if isinstance(value, Problem):
        return value.model_copy(
            update={"message": clip(scrub(value.message), 1024), "hint": clip(scrub(value.hint), 512)}
        )
    if isinstance(value, DataProfile):
        findings = tuple(f.model_copy(update={"message": clip(scrub(f.message), 384)}) for f in value.findings)
        return value.model_copy(update={"findings": findings})
    return value
