"""`finetune predict`: rows answered by what a job left, on this machine; stdout gets the answers and nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import click
from pydantic import ValidationError

from finetune_api.exits import EXITS, Reason
from finetune_api.formats import FormatChoice
from finetune_api.predict import PredictConfig, PredictReport
from finetune_api.run import HubAccess, StorageAccess
from finetune_cli.file_uri import file_uri
from finetune_cli.local.answers import write_csv
from finetune_cli.local.config import Device, cores
from finetune_cli.local.process import require_trainer
from finetune_cli.local.step_end import last_line
from finetune_cli.terminal import Stop, error_line, note, plural, quoted

ENDINGS = {".jsonl": "", ".ndjson": "", ".json": "", ".csv": ",", ".tsv": "\t"}
"""Of the file with the answers; what cuts its fields, if it is no JSON."""
TELL_SECONDS = 10.0


@click.command(short_help="Let a tuned model answer rows.")
@click.argument("output")
@click.argument("rows", metavar="INPUT")
@click.option(
    "-o", "--output", "target", type=click.Path(path_type=Path), help="A .jsonl or .csv file.  [default: stdout]"
)
@click.option("--force", is_flag=True, help="Replace the file that is there.")
@click.option("--column", "columns", metavar="ROLE=NAME", multiple=True, help="The column for a role, as text=body.")
@click.option("--as", "answer", default="prediction", show_default=True, help="Name of the answers beside the columns.")
@click.option(
    "--max-bad-rows", type=click.IntRange(0, 1_000_000), default=0, show_default=True, help="Rows to leave out."
)
@click.option("--format", "kind", type=click.Choice(get_args(FormatChoice)), default="auto", help="Of INPUT.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to compute."
)
@click.option("--endpoint", help="URL of the S3-compatible server for s3:// URIs.")
@click.option("--region", help="Its region.")
@click.option(
    "--path-style/--no-path-style",
    default=None,
    help="Put the bucket into the path, not the host name.  [default: with --endpoint]",
)
@click.option("-v", "--verbose", is_flag=True, help="Show the trainer's log too.")
@click.pass_context
def predict(
    context: click.Context,
    output: str,
    rows: str,
    target: Path | None,
    force: bool,
    columns: tuple[str, ...],
    answer: str,
    max_bad_rows: int,
    kind: str,
    device: Device,
    endpoint: str | None,
    region: str | None,
    path_style: bool | None,
    verbose: bool,
) -> None:
    """Let the model at OUTPUT (what a job wrote: a folder, file:// or s3:// URI) answer the rows of INPUT.

    INPUT is a file or URI in any format that a job reads: jsonl, csv, tsv, parquet or txt, also with .gz or .zst. The
    rows need no labels. Each row is written with its own columns and, beside them, the answer; rows that cannot be read
    are named with file and line, and refused unless --max-bad-rows allows for them.

    The exit code is 0 when all rows are answered, 130 after Ctrl-C, and the failure's own code otherwise.
    """
    require_trainer()
    cut = _cut(target, force)
    with tempfile.TemporaryDirectory(prefix="finetune-predict-") as scratch:
        folder = Path(scratch)
        config = PredictConfig(
            output=_uri(output, "folder"),
            rows=_uri(rows, "file"),
            format=kind,
            columns=_pairs(columns),
            answer=answer,
            max_bad_rows=max_bad_rows,
            target=str(folder / "answers.jsonl"),
            device=device,
            threads=cores(),
            storage=StorageAccess(
                endpoint=endpoint, region=region, path_style=path_style, ca_file=os.environ.get("AWS_CA_BUNDLE")
            ),
            hub=HubAccess(endpoint=os.environ.get("HF_ENDPOINT")),
            scratch=str(folder / "scratch"),
        )
        (folder / "scratch").mkdir()
        (folder / "predict.json").write_text(config.model_dump_json(by_alias=True, exclude_none=True))
        code = _run(folder, verbose)
        if code == 0:
            _deliver(Path(config.target), target, cut)
    context.exit(code)


def _cut(target: Path | None, force: bool) -> str:
    """What cuts the fields of the file with the answers, empty for JSON. Raises Stop."""
    if target is None:
        return ""
    if target.suffix.lower() not in ENDINGS:
        raise Stop(f"{target}: the name tells no format", hint="Name it .jsonl or .csv.")
    if target.exists() and not force:
        raise Stop(f"{target}: is there already", hint="--force replaces it.")
    if not target.absolute().parent.is_dir():
        raise Stop(f"{target}: {target.absolute().parent} is no folder", hint="Make it first.")
    return ENDINGS[target.suffix.lower()]


def _uri(given: str, what: str) -> str:
    """A URI as it is; a path as one. Raises Stop where there is nothing at a path."""
    if "://" in given:
        return given
    path = Path(given)
    if not path.exists():
        raise Stop(f"{given}: no such {what}", hint=f"Name a {what} of this machine, or a URI.")
    if what == "folder" and not path.is_dir():
        raise Stop(f"{given}: is a file", hint="Name the folder that a job wrote, then the file with the rows.")
    return file_uri(path)


def _pairs(columns: Sequence[str]) -> dict[str, str]:
    found = {}
    for pair in columns:
        role, equals, name = pair.partition("=")
        if not equals or not role or not name:
            raise Stop(f"--column {pair}: is no ROLE=NAME", hint="Write it as --column text=body.")
        found[role] = name
    return found


def _run(folder: Path, verbose: bool) -> int:
    """Start the trainer, show how far it is, and say how it ended; its exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start jobs in the background without it
    log = folder / "predict.log"
    command = [sys.executable, "-m", "finetune_trainer", "predict", "--config", str(folder / "predict.json")]
    last, told = PredictReport(), 0.0
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=None if verbose else sink, text=True
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                try:
                    report = PredictReport.model_validate_json(line)
                except ValidationError:
                    continue  # a library's word
                if report.stage != last.stage or time.monotonic() - told > TELL_SECONDS:
                    told = time.monotonic()
                    _show(report)
                last = report
            code = process.wait()
        except KeyboardInterrupt:
            code = 130
        finally:
            process.kill()
            process.wait()
    if code == 130:
        click.echo("\nStopped: nothing was written.", err=True)
    elif last.problem is not None:
        error_line(f"{last.problem.reason}: {last.problem.message}")
        click.echo(f"  {last.problem.hint}", err=True)
    elif code:
        error_line(f"{Reason.CRASHED}: the trainer left with exit code {code}: {last_line(log)}")
        code = code if code > 0 else EXITS[Reason.INTERNAL_ERROR].code or 1
    for finding in last.findings:
        where = f"{finding.file}:{finding.line}: " if finding.file else ""
        note(f"{where}{finding.message} ({plural(finding.count, 'row')})")
    return code


def _show(report: PredictReport) -> None:
    """One line of progress; the last word shows itself."""
    if report.problem is None:
        counted = f": {report.rows:,} of {plural(report.total, 'row')}" if report.rows or report.stage == "done" else ""
        click.echo(f"{report.task}: {report.stage}{counted}", err=True)


def _deliver(answers: Path, target: Path | None, cut: str) -> None:
    """To the standard output, or whole into the file's place."""
    if target is None:
        with answers.open(encoding="utf-8") as lines:
            shutil.copyfileobj(lines, sys.stdout)
        return
    part = target.with_name(f".{target.name}.part")
    try:
        if cut:
            write_csv(answers, part, cut)
        else:
            shutil.copyfile(answers, part)
        os.replace(part, target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise Stop(f"{target}: cannot be written: {error.strerror}") from None
    click.echo(f"wrote {quoted(target)}", err=True)
