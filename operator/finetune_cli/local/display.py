"""Show a run: a progress bar at a terminal, plain lines anywhere else. Both go to stderr; stdout is for the status.

The lines are those of `progress_lines`; the bar adds what changes every second (loss, speed, time to the end).
"""

from __future__ import annotations

import sys
import time
from typing import Protocol, Self

import click

from finetune_api.report import Report, Stage
from finetune_cli.progress_lines import STAGES, lines, progress
from finetune_operator.job.status.display import duration


class Display(Protocol):
    """Where a run is shown."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...
    def report(self, report: Report) -> None:
        """Show a new snapshot."""

    def say(self, message: str) -> None:
        """Tell something besides the reports."""

    def log(self, line: str) -> None:
        """Pass on a line of the trainer's log."""

    def begin(self) -> None:
        """A new process starts: its first report is compared only with what was shown already."""


def display() -> Display:
    """The one that fits stderr."""
    return Bar() if sys.stderr.isatty() else Plain()


class Plain:
    """One line for each event, and one of progress every `interval` seconds."""

    def __init__(self, interval: float = 10.0) -> None:
        self._interval = interval
        self._before: Report | None = None
        self._told = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def begin(self) -> None:
        self._before = between_processes(self._before)

    def report(self, report: Report) -> None:
        for line in lines(self._before, report):
            self.say(line)
        before = self._before.progress.step if self._before and self._before.progress else 0
        now = time.monotonic()
        value = report.progress
        if value and value.step > before and (now - self._told >= self._interval or value.step == value.total_steps):
            self._told = now
            self.say(progress(value))
        self._before = with_earlier(self._before, report)

    def say(self, message: str) -> None:
        click.echo(message, err=True)

    def log(self, line: str) -> None:
        click.echo(f"| {line}", err=True)


class Bar:
    """A live line below the events: stage, bar, step, loss, speed, time to the end."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        self._console = Console(stderr=True, highlight=False)
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[facts]}"),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task("Starting", total=None, facts="")
        self._before: Report | None = None
        self._since = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def begin(self) -> None:
        self._before = between_processes(self._before)

    def report(self, report: Report) -> None:
        for line in lines(self._before, report):
            self.say(line)
        value = report.progress
        training = value is not None and value.total_steps > 0 and report.stage is not Stage.PREPARING
        self._bar.update(
            self._task,
            description=_doing(report),
            total=value.total_steps if value and training else None,
            completed=value.step if value else 0,
            facts=_facts(report) if training else "",
        )
        self._before = with_earlier(self._before, report)

    def say(self, message: str) -> None:
        self._console.print(message, markup=False, soft_wrap=True)

    def log(self, line: str) -> None:
        self._console.print(f"| {line}", style="dim", markup=False, soft_wrap=True)


def _doing(report: Report) -> str:
    part = report.progress.part if report.progress and report.stage is Stage.TRAINING else None
    return f"{STAGES[report.stage]} {part}" if part else STAGES[report.stage]


def _facts(report: Report) -> str:
    value = report.progress
    assert value is not None
    parts = [f"{value.percent:3.0f}% {value.step}/{value.total_steps}"]
    parts += [f"loss {value.loss:.4g}"] if value.loss is not None else []
    parts += [f"{value.rows_per_second:.3g} rows/s"] if value.rows_per_second else []
    parts += [f"ETA {duration(value.eta_seconds)}"] if value.eta_seconds is not None else []
    return "  ".join(parts)


def with_earlier(before: Report | None, report: Report) -> Report:
    """The report, with what it leaves out because an earlier one said it."""
    kept = {n: getattr(before, n) for n in ("data", "resolved") if before is not None and getattr(report, n) is None}
    return report.model_copy(update=kept)


def between_processes(report: Report | None) -> Report | None:
    """What the next process need not repeat."""
    if report is None:
        return None
    return report.model_copy(update={"stage": Stage.PREPARING, "resumed_from_step": None, "progress": None})
