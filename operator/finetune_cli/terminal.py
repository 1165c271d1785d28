"""What every command shares at the terminal: errors of one line each, YAML that people read, and numbers with units."""

from __future__ import annotations

import errno
import os
import shlex
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import click
import yaml

from finetune_cli.manifest import ManifestError


class Stop(click.ClickException):
    """An expected end of a command: one line on stderr, a hint under it, exit code 1."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint

    def show(self, file: Any = None) -> None:
        error_line(self.message)
        if self.hint:
            click.echo(f"  {self.hint}", err=True)


def run_command(command: click.Command, name: str) -> NoReturn:
    """Run a command to its exit code. No traceback reaches a user, unless FINETUNE_DEBUG asks for it."""
    try:
        command.main(prog_name=name, standalone_mode=True)
    except ManifestError as error:
        for finding in error.findings:
            error_line(str(finding))
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            error_line(f"{error.filename or 'the disk'}: no space is left on this file system")
            click.echo("  Free space there; --state-dir of finetune run names another folder.", err=True)
            sys.exit(1)
        if os.environ.get("FINETUNE_DEBUG"):
            raise
        what = " ".join(str(error).split())[:500]
        error_line(f"unexpected {type(error).__name__}: {what}")
        click.echo("  This is a fault of ours; FINETUNE_DEBUG=1 shows where it happened.", err=True)
        sys.exit(70)
    sys.exit(0)


def error_line(message: str) -> None:
    """One red word and one line on stderr."""
    click.echo(f"{click.style('error:', fg='red', bold=True)} {message}", err=True)


def note(message: str) -> None:
    """Something the user should know that stops nothing; on stderr."""
    click.echo(f"{click.style('note:', fg='yellow')} {message}", err=True)


def headline(message: str) -> None:
    """A step begins; on stderr."""
    click.echo(click.style(message, bold=True), err=True)


def next_steps(steps: Iterable[tuple[str, str]], echo: Callable[[str], None] | None = None) -> None:
    """The commands to try next, each with what it is for."""
    say = echo or (lambda text: click.echo(text, err=True))
    say("")
    say(click.style("Next:", bold=True))
    for purpose, command in steps:
        say(f"  {click.style(purpose, dim=True)}")
        for line in command.splitlines():
            say(f"    {line}")


class _Dumper(yaml.SafeDumper):
    """Rows of a table (history, label lists) stay on one line each."""


def _list(dumper: yaml.SafeDumper, values: list[Any]) -> yaml.Node:
    simple = all(not isinstance(v, dict | list) for v in values)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=simple)


def _dict(dumper: yaml.SafeDumper, values: dict[str, Any]) -> yaml.Node:
    flat = {k: v for k, v in values.items() if not isinstance(v, dict | list)}
    row = set(values) <= {"step", "loss", "metrics"} and len(flat) >= len(values) - 1
    return dumper.represent_mapping("tag:yaml.org,2002:map", values.items(), flow_style=row)


_Dumper.add_representer(list, _list)
_Dumper.add_representer(dict, _dict)


def to_yaml(data: Any) -> str:
    """YAML in the order given, history points one a line."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def size(count: float | None) -> str:
    """Bytes in binary units: 812 KiB."""
    if count is None:
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def plural(count: int, word: str) -> str:
    """1 finding, 2 findings."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def quoted(text: object) -> str:
    """A word of a shell command: quoted only where it must be."""
    return shlex.quote(str(text))
