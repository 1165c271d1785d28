"""The entry point `finetune`."""

from __future__ import annotations

from importlib.metadata import version
from typing import NoReturn

import click

from finetune_cli.lazy_group import LazyGroup
from finetune_cli.terminal import run_command

HELP = """Fine-tune a model by one manifest, on this machine.

\b
  finetune init mails.jsonl -o job.yaml    write a manifest from a data file
  finetune validate job.yaml               check it, without a cluster
  finetune run job.yaml                    tune the model here, with progress
  finetune predict model new.jsonl         let what came of it answer new rows
  kubectl apply -f job.yaml                the same in a cluster

The manifest is the FineTuneJob of the cluster, word for word: the same rules, the same trainer, the same status.
"""

cli = LazyGroup(
    {
        "init": "finetune_cli.init.command:init",
        "validate": "finetune_cli.validate:validate",
        "run": "finetune_cli.local.command:run",
        "predict": "finetune_cli.local.predict:predict",
        "lr-find": "finetune_cli.local.lr_find:lr_find",
    },
    name="finetune",
    help=HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
cli = click.version_option(version("finetune-operator"), "-V", "--version", prog_name="finetune")(cli)


def main() -> NoReturn:
    """Run the command line."""
    run_command(cli, "finetune")


if __name__ == "__main__":
    main()
