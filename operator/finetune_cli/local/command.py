"""`finetune run`: the same file, the same trainer, on this machine; stdout gets the status and nothing else.

What a user sees stands on stderr, so that `finetune run job.yaml > status.yaml` works.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from finetune_api import API_VERSION, KIND
from finetune_api.base import FieldError, parse
from finetune_api.exits import EXITS, Reason
from finetune_api.job import Manifest
from finetune_api.status import Phase
from finetune_api.times import rfc3339
from finetune_cli.check import Job, check_files
from finetune_cli.file_uri import local_path
from finetune_cli.local.config import Device, Machine, cores, job_id, notes, spec_digest
from finetune_cli.local.display import display
from finetune_cli.local.next_steps import after_success
from finetune_cli.local.process import require_trainer
from finetune_cli.local.runner import Result, Runner, Signals
from finetune_cli.local.state_dir import RunRecord, StateDir, state_root
from finetune_cli.manifest import STDIN, ManifestError
from finetune_cli.progress_lines import verdict_line
from finetune_cli.terminal import Stop, error_line, headline, next_steps, note, plural, quoted, to_yaml

Hint = Callable[[list[tuple[str, str]]], None]


@click.command(short_help="Tune a model here, with progress; Ctrl-C and run again to go on later.")
@click.argument("file", metavar="FILE")
@click.option("--name", help="Which job, if FILE holds several.")
@click.option("--processes", type=click.IntRange(1, 64), help="Processes, instead of the manifest's workers in all.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to compute."
)
@click.option("--restart", is_flag=True, help="Start over: take the output over from whatever job wrote it.")
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    help="Where logs and records are kept.  [default: ~/.local/state/finetune-operator]",
)
@click.option("--no-hints", is_flag=True, help="Leave out the commands to try next.")
@click.option("-v", "--verbose", is_flag=True, help="Show the trainer's log too.")
@click.pass_context
def run(
    context: click.Context,
    file: str,
    name: str | None,
    processes: int | None,
    device: Device,
    restart: bool,
    state_dir: Path | None,
    no_hints: bool,
    verbose: bool,
) -> None:
    """Tune a model on this machine, exactly as the manifest FILE says ("-" reads the standard input).

    The same rules, trainer and status as in a cluster; file:// URIs may be used too. Progress goes to stderr, the final
    status to stdout as YAML. Ctrl-C writes a checkpoint and leaves; the same command then goes on from it.

    The exit code is 0 when the model is committed, 130 after Ctrl-C, and the failure's own code otherwise.
    """
    job = one_job(file, name)
    require_trainer()
    hint = (lambda steps: None) if no_hints else next_steps
    spec = job.manifest.spec
    machine = Machine(cores(), processes, device)
    state = StateDir(state_dir.absolute() if state_dir else state_root(), job.manifest.metadata.name, spec.output.uri)
    with state.writing():
        lock = state.lock()
        record = _record(state, job.manifest, restart)
        if record.completed:
            _report_complete(state, job, hint)
            return
        method = f"{spec.method.type} tuning of {spec.model.uri} for {spec.task}"
        headline(f"{job.manifest.metadata.name}: {method}")
        for line in notes(job.manifest, machine, os.environ):
            note(line)
        with Signals() as signals, display() as shown:
            result = Runner(job.manifest, machine, state, lock, record, shown, signals, os.environ, verbose).run()
        state.status.write_text(to_yaml({"status": result.status.to_json()}))
        _print_status(state)
    context.exit(_report_end(result, state, job, hint))


def _print_status(state: StateDir) -> None:
    """The whole status for programs; for people at a terminal the history's points are counted instead of shown."""
    text = state.status.read_text()
    if sys.stdout.isatty():
        lines = text.splitlines(keepends=True)
        points = [line for line in lines if line.startswith("  - {step:")]
        if points:
            counted = f"  # history: {plural(len(points), 'point')}, see {quoted(state.status)}\n"
            text = "".join(counted if line == "  history:\n" else line for line in lines if line not in points)
    click.echo(text, nl=False)


def one_job(file: str, name: str | None) -> Job:
    """The job of a file, of several the one of that name. Raises ManifestError, Stop."""
    checked = check_files([file], local=True)
    if checked.findings:
        raise ManifestError(list(checked.findings))
    jobs = [job for job in checked.jobs if name in (None, job.manifest.metadata.name)]
    if len(jobs) != 1:
        names = ", ".join(job.manifest.metadata.name for job in checked.jobs)
        raise Stop(
            f"{file}: holds {len(checked.jobs)} jobs: {names}" if jobs else f"{file}: holds no job {name}, but {names}",
            hint="Choose one with --name.",
        )
    return jobs[0]


def _record(state: StateDir, manifest: Manifest, restart: bool) -> RunRecord:
    """What is known of this job; a changed spec is a new job, and so is each --restart."""
    digest = spec_digest(manifest.spec)
    known = state.record()
    takeovers = known.takeovers if known else 0
    if known is not None and known.spec_digest == digest and not restart:
        return known if _still_there(manifest) else known.but(completed=False)
    if known is not None:
        state.forget()
    takeovers += restart
    record = RunRecord(
        job_id=job_id(manifest.spec, takeovers),
        spec_digest=digest,
        takeovers=takeovers,
        start_time=rfc3339(time.time()),
        taking_over=restart,
    )
    state.save(record)
    return record


def _still_there(manifest: Manifest) -> bool:
    """Whether a result that was committed is still at its place, as far as can be seen without a storage client."""
    uri = manifest.spec.output.uri
    if not uri.startswith("file://"):
        return True
    try:  # one that is "committing" only holds the place until the result is there
        return "committing" not in json.loads((local_path(uri) / "result.json").read_bytes())
    except (OSError, ValueError, TypeError):
        return False


def _report_complete(state: StateDir, job: Job, hint: Hint) -> None:
    uri = job.manifest.spec.output.uri
    click.echo(f"{job.manifest.metadata.name} is already complete: its model and report are at {uri}", err=True)
    click.echo("  --restart does it again and replaces them.", err=True)
    if state.status.exists():
        _print_status(state)
    hint(after_success(job.manifest))


def _report_end(result: Result, state: StateDir, job: Job, hint: Hint) -> int:
    """The last lines for people, and the exit code."""
    status = result.status
    if status.phase is Phase.SUCCEEDED:
        state.drop_scratch()
        steps = after_success(job.manifest)
        if job.document.file != STDIN and _fits_cluster(job):
            steps.append(("the same in a cluster", f"kubectl apply -f {quoted(job.document.file)}"))
        for verdict in status.verdicts or ():
            if verdict.warning:
                click.secho(f"\n{verdict_line(verdict)}", fg="yellow", err=True)
        hint(steps)
        return 0
    if status.phase is Phase.SUSPENDED:
        assert result.signal is not None
        kept = (
            f"the checkpoint of step {result.checkpoint_step} is kept"
            if result.checkpoint_step is not None
            else "no step was done yet"
        )
        click.echo(f"\nStopped: {kept}.", err=True)
        again = shlex.join(["finetune", *(a for a in sys.argv[1:] if a != "--restart")])
        hint([("go on from there" if result.checkpoint_step is not None else "start again", again)])
        return 128 + result.signal
    failure = status.failure
    assert failure is not None
    click.echo("", err=True)
    where = f"{failure.field}: " if failure.field else ""
    error_line(f"{failure.reason}: {where}{failure.message}")
    click.echo(f"  {failure.hint}", err=True)
    if failure.reason == Reason.OUTPUT_IN_USE:
        click.echo("  `finetune run --restart` takes it over.", err=True)
    click.echo(f"  Log: {quoted(result.log)}", err=True)
    return EXITS[Reason(failure.reason)].code or 1


def _fits_cluster(job: Job) -> bool:
    try:
        parse(Manifest, {"apiVersion": API_VERSION, "kind": KIND, **job.document.data}, local=False)
    except FieldError:
        return False
    return True
