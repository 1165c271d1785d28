"""The entry point `kubectl-finetune`, which kubectl runs as `kubectl finetune`: jobs in a cluster, as people want to
see them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import click

from finetune_cli.kubectl.api import JobsApi, connect
from finetune_cli.kubectl.logs import show_logs
from finetune_cli.kubectl.show import job_lines, list_lines, status_of
from finetune_cli.lazy_group import LazyGroup
from finetune_cli.terminal import run_command, to_yaml

HELP = """Show and steer FineTuneJobs in a cluster.

\b
  kubectl finetune list -A               all jobs
  kubectl finetune status spam-filter    what it is doing, how well, and why it failed
  kubectl finetune logs spam-filter -f   what its pods say
  kubectl finetune suspend spam-filter   write a checkpoint and give the pods back
  kubectl finetune resume spam-filter    go on from the checkpoint
"""
F = TypeVar("F", bound=Callable[..., Any])


def cluster_options(function: F) -> F:
    """-n, --context and --kubeconfig, with kubectl's meaning."""
    options = (
        click.option("-n", "--namespace", help="Namespace.  [default: the context's]"),
        click.option("--context", help="Context of the kubeconfig.  [default: the current one]"),
        click.option(
            "--kubeconfig", type=click.Path(), help="Kubeconfig file.  [default: $KUBECONFIG or ~/.kube/config]"
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


@click.command(short_help="What a job is doing, how well, and why it failed.")
@click.argument("name")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="The whole status, for programs.")
@click.option("-w", "--watch", is_flag=True, help="Show it again whenever it changes, until the job is over.")
@cluster_options
@click.pass_context
def status(
    context_: click.Context,
    name: str,
    output: str | None,
    watch: bool,
    namespace: str | None,
    context: str | None,
    kubeconfig: str | None,
) -> None:
    """Show the job NAME. The exit code is 1 if the job has failed."""
    api = connect(kubeconfig, context, namespace)
    body, shown = api.job(name), None
    while watch and status_of(body).completion_time is None:
        if body.get("status") != shown:
            shown = body.get("status")
            if sys.stdout.isatty():
                click.clear()
            _show(body, output)
        time.sleep(2)
        body = api.job(name)
    if watch and sys.stdout.isatty() and shown is not None:
        click.clear()
    _show(body, output)
    context_.exit(1 if status_of(body).failure else 0)


def _show(body: dict[str, Any], output: str | None) -> None:
    if output == "json":
        click.echo(json.dumps(body.get("status") or {}, indent=2))
    elif output == "yaml":
        click.echo(to_yaml(body.get("status") or {}), nl=False)
    else:
        for line in job_lines(body, time.time()):
            click.echo(line)


@click.command("list", short_help="All jobs of a namespace, or of all.")
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Of all namespaces.")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="The whole objects, for programs.")
@cluster_options
def list_(
    everywhere: bool, output: str | None, namespace: str | None, context: str | None, kubeconfig: str | None
) -> None:
    """List jobs with phase, progress, loss and time to the end."""
    api = connect(kubeconfig, context, namespace)
    bodies = api.jobs(everywhere)
    if output:
        click.echo(json.dumps(bodies, indent=2) if output == "json" else to_yaml(bodies).rstrip())
        return
    if not bodies:
        click.echo(f"No FineTuneJobs in {'any namespace' if everywhere else f'namespace {api.namespace}'}.", err=True)
        return
    for line in list_lines(bodies, everywhere, time.time()):
        click.echo(line)


@click.command(short_help="What its pods say: the prepare step and rank 0, or all ranks.")
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job is over, over its restarts.")
@click.option("--all", "everyone", is_flag=True, help="All workers, not only the first.")
@click.option("--attempt", type=click.IntRange(1), help="Of this attempt.  [default: the newest]")
@click.option("--tail", type=click.IntRange(0), help="Only the last lines of each pod.")
@cluster_options
def logs(
    name: str,
    follow: bool,
    everyone: bool,
    attempt: int | None,
    tail: int | None,
    namespace: str | None,
    context: str | None,
    kubeconfig: str | None,
) -> None:
    """Print the logs of the job NAME, each line with the worker that it comes from."""
    api = connect(kubeconfig, context, namespace)
    show_logs(api, name, follow=follow, everyone=everyone, attempt=attempt, tail=tail, echo=click.echo)


@click.command(short_help="Write a checkpoint and give the pods back.")
@click.argument("name")
@cluster_options
def suspend(name: str, namespace: str | None, context: str | None, kubeconfig: str | None) -> None:
    """Suspend the job NAME: it writes a checkpoint, its pods go, and it waits until it is resumed."""
    _suspend(connect(kubeconfig, context, namespace), name, True)


@click.command(short_help="Go on from the checkpoint.")
@click.argument("name")
@cluster_options
def resume(name: str, namespace: str | None, context: str | None, kubeconfig: str | None) -> None:
    """Resume the job NAME: new pods go on from its last checkpoint."""
    _suspend(connect(kubeconfig, context, namespace), name, False)


def _suspend(api: JobsApi, name: str, value: bool) -> None:
    body = api.job(name)
    if status_of(body).completion_time is not None:
        click.echo(
            f"{name} is over ({(body['status'] or {}).get('phase')}); there is nothing to"
            f" {'suspend' if value else 'resume'}",
            err=True,
        )
        return
    if bool(body["spec"].get("suspend")) == value:
        click.echo(f"{name} is {'suspended' if value else 'not suspended'} already", err=True)
        return
    api.suspend(name, value)
    click.echo(f"{name} will write a checkpoint and stop" if value else f"{name} goes on from its last checkpoint")


cli = LazyGroup(
    {
        "list": "finetune_cli.kubectl.command:list_",
        "status": "finetune_cli.kubectl.command:status",
        "logs": "finetune_cli.kubectl.command:logs",
        "validate": "finetune_cli.validate:validate",
        "suspend": "finetune_cli.kubectl.command:suspend",
        "resume": "finetune_cli.kubectl.command:resume",
    },
    name="kubectl finetune",
    help=HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def main() -> NoReturn:
    """Run the plugin."""
    run_command(cli, "kubectl finetune")


if __name__ == "__main__":
    main()
