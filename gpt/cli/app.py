"""The command group of `python -m gpt`, and how it reports errors.

A command is imported when it is needed, and imports expensive packages when it runs, so that `--help` answers at once.
A user's mistake is reported as one `Error:` with exit status 2. Any other exception is a bug and keeps its traceback.
"""

import errno
import io
import logging
import pkgutil
import signal
import sys
from typing import Any

import click

from gpt.errors import UserError

# The commands by name. To add one, write it and add a line here.
COMMANDS = {
    "train": "gpt.cli.train:train",
    "sample": "gpt.cli.sample:sample",
    "score": "gpt.cli.evaluate:score",
    "eval": "gpt.cli.evaluate:evaluate",
    "info": "gpt.cli.info:info",
    "presets": "gpt.cli.info:presets",
}


class Failure(click.ClickException):
    """An `Error: ...` with the exit status of a usage error."""

    exit_code = 2


class Commands(click.Group):
    """A group that imports its commands when they are needed and reports a user's mistake in one message."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            command: click.Command = pkgutil.resolve_name(COMMANDS[cmd_name])
            return command
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("\nStopped by Ctrl-C.", err=True)
            raise click.exceptions.Exit(128 + signal.SIGINT) from None
        except UserError as error:
            raise Failure(str(error)) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # The reader of our output has closed it; click handles that.
                raise
            raise Failure(str(error)) from error
        except MemoryError as error:
            raise Failure(
                f"not enough memory: {error or 'none is left'}. Try a smaller --batch-size, --block-size or model; "
                "`python -m gpt info` prints the memory of a step"
            ) from error
        except ModuleNotFoundError as error:
            if (error.name or "gpt").partition(".")[0] in ("gpt", "tensorlite"):  # This is a bug.
                raise
            raise Failure(f"this needs the package {error.name}: pip install 'tensorlite[gpt,plot]'") from error
        except click.exceptions.Exit:  # Exit is a RuntimeError too.
            raise
        except RuntimeError as error:
            from tensorlite import DeviceError

            if isinstance(error, DeviceError):
                raise Failure(str(error)) from error
            raise


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Train a GPT on a text, and generate text with it."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # Do not stop at a character that the terminal does not have.
    logger = logging.getLogger("gpt")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
