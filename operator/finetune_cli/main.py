"""The entry point `finetune`: each command's module is imported when it is called, so that `finetune --help` is
instant.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import NoReturn

import click

from finetune_cli.terminal import run_command


class LazyGroup(click.Group):
    """A group whose commands are named as module:attribute, in the order in which a user needs them."""

    def __init__(self, commands: dict[str, str], **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]
        self.lazy = commands

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.lazy:
            return None
        module, attribute = self.lazy[cmd_name].split(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from finetune_cli.check import closest

        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            close = closest(args[0], list(self.lazy))
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(self.lazy)}"
            raise click.UsageError(f"no command {args[0]}; {hint}", ctx)
        return super().resolve_command(ctx, args)


HELP = """Fine-tune a model by one manifest, on this machine.

\b
  finetune init mails.jsonl -o job.yaml    write a manifest from a data file
  finetune validate job.yaml               check it, without a cluster
  finetune run job.yaml                    tune the model here, with progress
  kubectl apply -f job.yaml                the same in a cluster

The manifest is the FineTuneJob of the cluster, word for word: the same rules, the same trainer, the same status.
"""

cli = LazyGroup(
    {
        "init": "finetune_cli.init.command:init",
        "validate": "finetune_cli.validate:validate",
        "run": "finetune_cli.local.command:run",
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
