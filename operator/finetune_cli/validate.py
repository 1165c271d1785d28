"""`finetune validate`: every finding of every file, and an exit code for pipelines."""

from __future__ import annotations

import click

from finetune_cli.check import check_files
from finetune_cli.terminal import note, plural

LOCAL_OPTION = click.option(
    "--cluster/--local",
    "cluster",
    default=True,
    help="Judge by a cluster's rules (the default), or by those of `finetune run`, which may read file:// URIs.",
)


@click.command(short_help="Check manifests: every finding with its file, line and remedy.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@LOCAL_OPTION
@click.option("-q", "--quiet", is_flag=True, help="Say nothing about files that are valid.")
@click.pass_context
def validate(context: click.Context, files: tuple[str, ...], cluster: bool, quiet: bool) -> None:
    """Check FineTuneJobs against the rules that the API server applies, without a cluster.

    Every finding of every FILE is printed as FILE:LINE: field: why; what to do. "-" reads the standard input.
    The exit code is 0 if all are valid, and 1 if not.
    """
    checked = check_files(files, local=not cluster)
    for finding in checked.foreign:
        note(f"{finding}; left unchecked")
    for finding in checked.findings:
        click.echo(str(finding))
    if not quiet:
        for job in checked.jobs:
            click.echo(f"{job.document.file}:{job.document.line}: FineTuneJob {job.manifest.metadata.name} is valid")
    if checked.findings:
        count = len({f.file for f in checked.findings})
        click.echo(f"{plural(len(checked.findings), 'finding')} in {plural(count, 'file')}", err=True)
        context.exit(1)
