"""`finetune init`: a commented manifest from a data file, to be read and changed; it says what it guessed, and why."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import click

from finetune_api import API_VERSION, KIND
from finetune_api.method import METHODS
from finetune_api.metrics import LOSS
from finetune_cli.check import check
from finetune_cli.file_uri import file_uri
from finetune_cli.init.guess import guess
from finetune_cli.init.guesses.base import Guess
from finetune_cli.init.sample import Sample, sample
from finetune_cli.init.ways import way_for
from finetune_cli.manifest import read_documents
from finetune_cli.terminal import Stop, next_steps, note, plural, quoted


@click.command(short_help="Write a manifest from a data file.")
@click.argument("data", metavar="DATA_FILE", type=click.Path(path_type=Path))
@click.option("-o", "--output", "target", type=click.Path(path_type=Path), help="Where to write it.  [default: stdout]")
@click.option("--force", is_flag=True, help="Replace the file that is there.")
@click.option("--model", help="URI of the model to start from.")
@click.option("--text", help="The column that holds the texts, if the guess is wrong.")
@click.option("--label", help="The column that holds the classes, if the guess is wrong.")
@click.option("--name", help="Name of the job.  [default: from the file's name]")
def init(
    data: Path,
    target: Path | None,
    force: bool,
    model: str | None,
    text: str | None,
    label: str | None,
    name: str | None,
) -> None:
    """Look at the first rows of DATA_FILE (jsonl, csv, parquet or txt), guess what they are for, and write a manifest.

    The manifest is commented, valid for `finetune run`, and meant to be read and changed.
    """
    if target is not None and target.exists() and not force:
        raise Stop(f"{target}: is there already", hint="--force replaces it.")
    if "://" in str(data):
        raise Stop(f"{data}: is a URI", hint="Name a file on this machine; any few hundred of the rows will do.")
    seen = sample(data)
    guessed = guess(seen.rows, text=text, label=label)
    written = manifest_text(
        data.absolute(), seen, guessed, name=name or job_name(data), model=model or guessed.task.example_model
    )
    check(read_documents(written, str(target or data))[0], local=True)
    for line in (*guessed.reasons, *_classes(guessed)):
        note(line)
    if target is None:
        click.echo(written, nl=False)
        return
    try:
        target.write_text(written)
    except OSError as error:
        raise Stop(f"{target}: cannot be written: {error.strerror}") from None
    click.echo(f"wrote {target}: {guessed.task.name} from {plural(len(seen.rows), 'row')} looked at", err=True)
    next_steps(
        [
            ("read and change it", f"{os.environ.get('EDITOR', 'vi')} {quoted(target)}"),
            ("tune here", f"finetune run {quoted(target)}"),
        ]
    )


def _classes(guessed: Guess) -> list[str]:
    if not guessed.classes:
        return []
    shown = ", ".join(f"{name} ({count})" for name, count in list(guessed.classes.items())[:8])
    return [f"classes: {shown}{', …' if len(guessed.classes) > 8 else ''}"]


def job_name(path: Path) -> str:
    """A valid name from a file's name."""
    stem = path.name.split(".")[0].lower()
    return re.sub(r"[^a-z0-9]+", "-", stem).strip("-")[:63].strip("-") or "job"


def manifest_text(path: Path, seen: Sample, guessed: Guess, *, name: str, model: str) -> str:
    """The manifest with its comments."""
    columns = ", ".join(f"{role}: {_named(column)}" for role, column in guessed.columns.items())
    task = guessed.task
    formats = "" if seen.named else f"    format: {seen.format}  # the file's name does not tell it\n"
    offered = [name for name in task.metrics if name == task.default_metric or name != LOSS]
    fit = (method for method in METHODS.values() if method.fits(task))
    methods = "".join(f"    # {method.name}: {method.trains}\n" for method in fit)
    choices = " or ".join(f"{name} (the default)" if name == task.default_metric else name for name in offered)
    way = way_for(seen, guessed)
    return f"""\
# Check: finetune validate --local FILE    Run here: finetune run FILE    In a cluster: kubectl apply -f FILE
apiVersion: {API_VERSION}
kind: {KIND}
metadata:
  name: {name}
spec:
  task: {task.name}
  model:
    uri: {_quoted(model)}  # s3://, hf:// or file:///; a cluster reads no file://
  data:
    train:
      uri: {_quoted(file_uri(path))}  # for a cluster: upload it, and write s3://bucket/prefix/*.jsonl
{way.data}    columns: {{{columns}}}
{formats}  method:
{methods}{way.method}    # learningRate, maxLength and more are chosen from model and data; status.resolved shows them
  # evaluation.metric: {choices}
  output:
    uri: {_quoted(f"{file_uri(path.parent)}/{name}-model")}  # the model, its report and the checkpoints
{way.output}"""


def _named(column: str | tuple[str, ...]) -> str:
    return _quoted(column) if isinstance(column, str) else f"[{', '.join(map(_quoted, column))}]"


def _quoted(text: str) -> str:
    """A YAML scalar in flow or block context; JSON's quotes are YAML's."""
    return (
        text
        if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./:*-]*[A-Za-z0-9_*]", text) and _is_text(text)
        else json.dumps(text, ensure_ascii=False)
    )


def _is_text(text: str) -> bool:
    from finetune_cli.manifest import scalar

    return isinstance(scalar(text), str)
