"""A command group that imports a command's module when it is called, so that `--help` is instant."""

from __future__ import annotations

import importlib

import click


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
