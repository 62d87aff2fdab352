"""A command whose messages have the words of the command line."""

import re
from typing import Any

import click

from gpt.cli.suggestions import OPTION_ALIASES, meant
from gpt.config import ConfigError


class Command(click.Command):
    """A command that suggests the option that was meant, and calls an option in a message as the user does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)  # The parser empties the list.
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            # The parser reads -lr as -l and -r.
            name = next((arg for arg in given if arg.startswith(error.option_name)), error.option_name)
            name = name.partition("=")[0]
            options = [o for p in self.get_params(ctx) if isinstance(p, click.Option) for o in p.opts]
            near = meant(name, options, OPTION_ALIASES)
            hint = f" Did you mean {near!r}?" if near else elsewhere(ctx, name)
            raise click.UsageError(f"No such option {name[:80]!r}.{hint}", ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            raise ConfigError(with_flags(str(error), self.flags(ctx))) from error

    def flags(self, ctx: click.Context) -> dict[str, str]:
        """Return the option for each dotted name of a field.

        Where the configuration comes from a file, these are the options that were given, because the others are in that
        file.
        """
        from_file = ctx.params.get("config") is not None
        return {
            parameter.name.replace("__", "."): parameter.opts[0]
            for parameter in self.get_params(ctx)
            if isinstance(parameter, click.Option) and parameter.name in ctx.params
            if ctx.params[parameter.name] is not None or not from_file
        }


def elsewhere(ctx: click.Context, name: str) -> str:
    """Return a sentence about other commands that have an option, or an empty string."""
    parent = ctx.parent
    if parent is None or not isinstance(group := parent.command, click.Group):
        return ""
    found = [
        command
        for command in group.list_commands(parent)
        if (known := group.get_command(parent, command))
        if any(name in parameter.opts for parameter in known.params)
    ]
    return f" It is an option of {' and '.join(found)}." if 0 < len(found) <= 2 else ""


def with_flags(message: str, flags: dict[str, str]) -> str:
    """Return a message about `optim.lr = 5` as one about `--lr 5`."""

    def flag(match: re.Match[str]) -> str:
        name, equals = match[1] or match[2], match[3]
        return flags[name] + (" " if equals else "") if name in flags else match[0]

    # `name` has no dot, so it counts in front of a value only.
    return re.sub(r"(?<![\w.'/])(?:([a-z]+\.[a-z_0-9]+)(?![\w.])|(name)(?= = ))( = )?", flag, message)
