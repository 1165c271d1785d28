"""Prepare once, launch until the job is complete: attempts, restarts by cause, stops and deadlines on this machine.

The rules are the operator's: a user's mistake never retries, a lost peer or a storage fault does within the restart
budget, and each new checkpoint gives the whole budget back. A first Ctrl-C asks for a checkpoint, a second one kills.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, Self

from finetune_api.exits import EXITS, Reason, Retry
from finetune_api.job import Manifest
from finetune_api.report import Report
from finetune_api.status import Failure, Phase, Status
from finetune_cli.display import Display
from finetune_cli.folder import Folder, Record
from finetune_cli.local import Machine, local_config, trainer_environment
from finetune_cli.local_status import Known, attempt_of, local_status, timestamp
from finetune_cli.outcome import End, end_of
from finetune_cli.process import Step, TrainerProcess
from finetune_cli.terminal import duration

POLL_SECONDS = 0.1
LONGEST_WAIT = 30.0
KILL_MARGIN_SECONDS = 15.0


class Signals:
    """Counts the signals that ask us to stop, instead of dying of them."""

    STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.received: list[int] = []
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in self.STOP}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)


@dataclass(frozen=True, slots=True)
class Result:
    """How the run ended."""

    status: Status
    end: End | None
    checkpoint_step: int | None
    signal: int | None  # the one that stopped it


class Runner:
    """One `finetune run`."""

    def __init__(
        self, manifest: Manifest, machine: Machine, folder: Folder, lock: int, record: Record, display: Display,
        signals: Signals, environment: Mapping[str, str], verbose: bool,
    ) -> None:  # fmt: skip
        self._manifest, self._machine, self._folder, self._lock = manifest, machine, folder, lock
        self._record, self._display, self._signals = record, display, signals
        self._environment, self._verbose = environment, verbose
        self._known = Known()
        self._started = time.monotonic()
        self._elapsed_before = record.elapsed
        self._deadline_passed = False
        self._streak = 0  # restarts in a row without a new checkpoint
        self._exhausted = False

    def run(self) -> Result:
        """To the end of the job, or of our patience."""
        end = self._prepare()
        going_on = end.failure is None
        while going_on and not self._over():
            end = self._attempt()
            going_on = end.failure is not None and self._go_on(end)
        return self._result(end)

    def _prepare(self) -> End:
        """Until it passes, or fails for good."""
        self._display.say("Checking data and model")
        tries = 0
        while True:
            end = self._step("prepare", self._record.attempt + 1)
            if end.failure is None:
                self._keep(taking_over=False)
                return end
            tries += 1
            if self._over() or end.retry is Retry.NEVER or tries > self._max_restarts():
                return end
            self._tell_retry(end, tries)

    def _attempt(self) -> End:
        self._keep(attempt=self._record.attempt + 1)
        started = timestamp()
        self._known = self._known.but(report=None)
        end = self._step("launch", self._record.attempt)
        entry = attempt_of(self._record, self._known, started).to_json()
        by_name = attempt_of(self._record, self._known, started).model_dump(
            mode="json", by_alias=False, exclude_none=True
        )
        assert len(entry) == len(by_name)
        self._keep(attempts=[by_name, *self._record.attempts][:12], completed=end.failure is None)
        return end

    def _go_on(self, end: End) -> bool:
        """Whether another attempt is made after a failed one; waits before it is."""
        if self._over() or end.retry is Retry.NEVER:
            return False
        began = (self._known.report.resumed_from_step if self._known.report else None) or 0
        fresh = (self._known.checkpoint_step() or 0) > began
        streak = 0 if fresh or end.retry is Retry.ALWAYS else self._streak + 1
        if streak > self._max_restarts():
            self._exhausted = True
            return False
        self._streak = streak
        self._keep(restarts=self._record.restarts + 1)
        self._tell_retry(end, streak)
        return True

    def _tell_retry(self, end: End, count: int) -> None:
        assert end.failure is not None
        wait = min(LONGEST_WAIT, float(2 ** max(0, count - 1))) if count else 0.0
        self._display.say(
            f"{end.failure.reason}: {end.failure.message}; trying again{f' in {duration(wait)}' if wait else ''}"
        )
        until = time.monotonic() + wait
        while time.monotonic() < until and not self._over():
            time.sleep(POLL_SECONDS)

    def _step(self, step: Step, attempt: int) -> End:
        config = local_config(
            self._manifest, self._machine, self._folder.path, identity=self._record.job_id, attempt=attempt,
            overwrite=step == "prepare" and self._record.taking_over, environment=self._environment,
        )  # fmt: skip
        self._folder.config.write_text(config.model_dump_json(by_alias=True, exclude_none=True, indent=1))
        self._folder.scratch.mkdir(exist_ok=True)
        environment = trainer_environment(self._manifest.spec, self._environment)
        self._display.begin()
        process = TrainerProcess(step, self._folder, attempt, environment, self._lock)
        try:
            code = self._follow(process, step)
            end = end_of(step, code, process.outcome(), process.log)
        finally:
            process.close()
        self._known = self._known.but(end=end)
        return end

    def _follow(self, process: TrainerProcess, step: Step) -> int:
        """Show what it says until it ends; pass on the wish to stop."""
        asked_at: float | None = None
        while True:
            code = process.exit_code()
            for report in process.reports():
                self._take(report, step)
            if self._verbose:
                for line in process.output():
                    self._display.log(line)
            if code is not None:
                return code
            if asked_at is None and self._over():
                asked_at = time.monotonic()
                process.stop()
                self._tell_stop(step)
            grace = self._manifest.spec.workers.termination_grace_period_seconds + KILL_MARGIN_SECONDS
            if len(self._signals.received) > 1 or (asked_at is not None and time.monotonic() - asked_at > grace):
                self._display.say("Killing the trainer; what it did since the last checkpoint is lost")
                process.kill()
            time.sleep(POLL_SECONDS)

    def _take(self, report: Report, step: Step) -> None:
        if report.job_id != self._record.job_id:
            return
        self._known = self._known.but(**{"prepared" if step == "prepare" else "report": report})
        self._display.report(report)

    def _tell_stop(self, step: Step) -> None:
        if self._deadline_passed:
            self._display.say("spec.activeDeadlineSeconds has passed: stopping")
        elif step == "prepare":
            self._display.say("Stopping")
        else:
            self._display.say("Stopping: the trainer writes a checkpoint first (Ctrl-C again kills it at once)")

    def _over(self) -> bool:
        """Whether nothing more is to be started."""
        limit = self._manifest.spec.active_deadline_seconds
        self._deadline_passed = self._deadline_passed or (limit is not None and self._elapsed() > limit)
        return bool(self._signals.received) or self._deadline_passed

    def _elapsed(self) -> float:
        return self._elapsed_before + time.monotonic() - self._started

    def _max_restarts(self) -> int:
        return self._manifest.spec.restart_policy.max_restarts

    def _keep(self, **changes: Any) -> None:
        self._record = self._record.but(elapsed=self._elapsed(), **changes)
        self._folder.save(self._record)

    def _result(self, end: End) -> Result:
        self._keep()
        failure, phase, message = end.failure, Phase.FAILED, None
        stopped_by = self._signals.received[0] if self._signals.received else None
        if failure is None and end.step == "launch":
            phase, message, stopped_by = Phase.SUCCEEDED, "The model and its report are committed.", None
        elif stopped_by is not None:
            phase, failure, message = (
                Phase.SUSPENDED,
                None,
                f"Stopped by {signal.Signals(stopped_by).name} at step {self._known.step()}.",
            )
        elif self._deadline_passed:
            row = EXITS[Reason.DEADLINE_EXCEEDED]
            failure = Failure(reason=row.reason, message=row.cause, hint=row.hint, exit_code=end.code)
        elif self._exhausted and failure is not None:
            row = EXITS[Reason.TOO_MANY_RESTARTS]
            text = f"{self._max_restarts()} restarts without a new checkpoint; the last: {failure.reason}: {failure.message}"
            failure = Failure(reason=row.reason, message=text[:1024], hint=failure.hint, exit_code=end.code)
        status = local_status(self._manifest.spec, self._record, self._known, phase, failure, message)
        return Result(status, end, self._known.checkpoint_step(), stopped_by)
