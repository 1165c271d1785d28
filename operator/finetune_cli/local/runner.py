"""Prepare once, launch until the job is complete: attempts, restarts by cause, stops and deadlines on this machine.

The rules are the operator's own (`finetune_operator.job.attempt.restart`): a user's mistake never retries, a lost peer
or a storage fault does within the restart budget, and each new checkpoint gives the whole budget back. A first Ctrl-C
asks for a checkpoint, a second one kills.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from finetune_api.exits import Reason, Retry
from finetune_api.job import Manifest
from finetune_api.report import Report
from finetune_api.status import ATTEMPTS, Failure, Status
from finetune_cli.local.config import Machine, local_config, trainer_environment
from finetune_cli.local.display import Display
from finetune_cli.local.process import Step, TrainerProcess
from finetune_cli.local.state_dir import RunRecord, StateDir
from finetune_cli.local.status import attempt_entry, final_status, initial_state
from finetune_cli.local.step_end import StepEnd, step_end
from finetune_operator.job.attempt import restart
from finetune_operator.job.attempt.causes import Cause
from finetune_operator.job.status.display import duration

POLL_SECONDS = 0.1
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
    log: Path
    checkpoint_step: int | None
    signal: int | None  # the one that stopped it


class Runner:
    """One `finetune run`."""

    def __init__(
        self,
        manifest: Manifest,
        machine: Machine,
        state_dir: StateDir,
        lock: int,
        record: RunRecord,
        display: Display,
        signals: Signals,
        environment: Mapping[str, str],
        verbose: bool,
    ) -> None:
        self._manifest, self._machine, self._state_dir, self._lock = manifest, machine, state_dir, lock
        self._record, self._display, self._signals = record, display, signals
        self._environment, self._verbose = environment, verbose
        self._state = initial_state(record)
        self._started = time.monotonic()
        self._elapsed_before = record.elapsed
        self._deadline_passed = False
        self._used = 0  # of the restart budget
        self._fruitless = 0  # attempts in a row that left no newer checkpoint

    def run(self) -> Result:
        """To the end of the job, or of our patience."""
        self._display.say("Checking data and model")
        end, failure = self._until_it_passes(self._prepare)
        if failure is None and end.cause is None:
            self._used = self._fruitless = 0
            end, failure = self._until_it_passes(self._attempt)
        return self._result(end, failure)

    def _until_it_passes(self, step: Callable[[], StepEnd]) -> tuple[StepEnd, Failure | None]:
        """The last end of a step, and the failure of the job if that was the last attempt; a stop is no failure."""
        before: str | None = None
        while True:
            end = step()
            if end.cause is None:
                return end, None
            if self._over():
                return end, None if end.cause.retry is not Retry.NEVER else end.cause.failure()
            progress = self._state.progressed
            self._fruitless = 0 if progress else self._fruitless + 1
            limit = self._manifest.spec.restart_policy.max_restarts
            next_ = restart.after(
                end.cause,
                used=self._used,
                progress=progress,
                fruitless=self._fruitless,
                max_restarts=limit,
                before=before,
            )
            before = end.cause.place
            if isinstance(next_, Failure):
                return end, next_
            self._used = next_.used
            self._keep(restarts=self._record.restarts + 1)
            if not self._wait(end.cause, next_.delay):
                return end, None

    def _prepare(self) -> StepEnd:
        end = self._step("prepare", self._record.attempt + 1)
        if end.cause is None:
            self._keep(taking_over=False)
        return end

    def _attempt(self) -> StepEnd:
        self._keep(attempt=self._record.attempt + 1)
        started = time.time()
        end = self._step("launch", self._record.attempt)
        failure = end.cause.failure() if end.cause else None
        entry = attempt_entry(self._record, self._state, end.code, failure, started, time.time()).to_json()
        self._keep(attempts=[entry, *self._record.attempts][:ATTEMPTS], completed=failure is None)
        return end

    def _wait(self, cause: Cause, delay: float) -> bool:
        """Say why another attempt is made, and wait for it; False if stopped meanwhile."""
        self._display.say(f"{cause.reason}: {cause.message}; trying again{f' in {duration(delay)}' if delay else ''}")
        until = time.monotonic() + delay
        while time.monotonic() < until and not self._over():
            time.sleep(POLL_SECONDS)
        return not self._over()

    def _step(self, step: Step, attempt: int) -> StepEnd:
        config = local_config(
            self._manifest,
            self._machine,
            self._state_dir.path,
            identity=self._record.job_id,
            attempt=attempt,
            overwrite=step == "prepare" and self._record.taking_over,
            environment=self._environment,
        )
        self._state_dir.config.write_text(config.model_dump_json(by_alias=True, exclude_none=True, indent=1))
        self._state_dir.scratch.mkdir(exist_ok=True)
        environment = trainer_environment(self._manifest.spec, self._environment)
        self._display.begin()
        self._state = self._state.before_process()
        process = TrainerProcess(step, self._state_dir, attempt, environment, self._lock)
        try:
            code = self._follow(process, step)
            end = step_end(step, code, process.outcome(), process.log)
        finally:
            process.close()
        self._state = self._state.after_outcome(end.outcome)
        return end

    def _follow(self, process: TrainerProcess, step: Step) -> int:
        """Show what it says until it ends; pass on the wish to stop."""
        asked_at: float | None = None
        grace = self._manifest.spec.workers.termination_grace_period_seconds + KILL_MARGIN_SECONDS
        while True:
            code = process.exit_code()
            for report in process.reports():
                self._take(report)
            if self._verbose:
                for line in process.output():
                    self._display.log(line)
            if code is not None:
                return code
            if asked_at is None and self._over():
                asked_at = time.monotonic()
                process.stop()
                self._say_stop(step)
            too_late = asked_at is not None and time.monotonic() - asked_at > grace
            if len(self._signals.received) > 1 or too_late:
                self._display.say("Killing the trainer; what it did since the last checkpoint is lost")
                process.kill()
            time.sleep(POLL_SECONDS)

    def _take(self, report: Report) -> None:
        if report.job_id == self._record.job_id:
            self._state = self._state.after_report(report, self._manifest.spec, time.time())
            self._display.report(report)

    def _say_stop(self, step: Step) -> None:
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

    def _keep(self, **changes: Any) -> None:
        self._record = self._record.but(elapsed=self._elapsed(), **changes)
        self._state_dir.save(self._record)

    def _result(self, end: StepEnd, failure: Failure | None) -> Result:
        self._keep()
        complete = end.step == "launch" and end.cause is None
        stopped_by = self._signals.received[0] if self._signals.received and not complete and failure is None else None
        if not complete and failure is None and stopped_by is None:
            assert self._deadline_passed
            failure = Cause(
                Reason.DEADLINE_EXCEEDED, "spec.activeDeadlineSeconds has passed", exit_code=end.code
            ).failure()
        name = signal.Signals(stopped_by).name if stopped_by else None
        status = final_status(
            self._manifest.spec, self._record, self._state, time.time(), failure=failure, stopped_by=name
        )
        return Result(status, end.log, self._state.checkpoint_step, stopped_by)
