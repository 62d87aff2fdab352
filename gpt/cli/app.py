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
from typing import IO, Any

import click

from gpt.cli.compiling import announce_compilation
from gpt.cli.processes import end_all, wait_before_error
from gpt.cli.suggestions import COMMAND_ALIASES, meant
from gpt.errors import UserError

# The commands by name. To add one, write it and add a line here.
COMMANDS = {
    "train": "gpt.cli.train:train",
    "prepare": "gpt.cli.prepare:prepare",
    "finetune": "gpt.cli.finetune:finetune",
    "sample": "gpt.cli.sample:sample",
    "chat": "gpt.cli.chat:chat",
    "score": "gpt.cli.evaluate:score",
    "eval": "gpt.cli.evaluate:evaluate",
    "info": "gpt.cli.info:info",
    "presets": "gpt.cli.info:presets",
    "models": "gpt.cli.models:models",
    "export": "gpt.cli.export:export",
    "explore": "gpt.cli.explore:explore",
    "serve": "gpt.cli.serve:serve",
    "runs": "gpt.cli.runs:runs",
    "attention": "gpt.cli.inspect:attention",
    "lens": "gpt.cli.inspect:lens",
    "embeddings": "gpt.cli.inspect:embeddings",
    "gradients": "gpt.cli.inspect:gradients",
}

# The extras of packages; that of the others is gpt or plot.
EXTRAS = {
    "llguidance": "grammar",
    "tensorboardX": "tensorboard",
    **dict.fromkeys(("fastapi", "h11", "prometheus_client", "pydantic", "starlette", "uvicorn"), "serve"),
}


class Failure(click.ClickException):
    """An `Error: ...` with the exit status of a usage error."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the error. Of several processes, one prints it and ends all."""
        wait_before_error()
        super().show(file)
        end_all(self.exit_code)


class Commands(click.Group):
    """A group that imports its commands when they are needed and reports a user's mistake in one message."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            command: click.Command = pkgutil.resolve_name(COMMANDS[cmd_name])
            return command
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            near = meant(name, self.list_commands(ctx), COMMAND_ALIASES)
            hint = f"Did you mean {near!r}?" if near else f"The commands are {', '.join(self.list_commands(ctx))}."
            raise click.UsageError(f"No such command {name[:80]!r}. {hint}", ctx)
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:  # --help and --version print while the arguments are read.
            return super().parse_args(ctx, args)
        except OSError as error:
            raise os_failure(error) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("\nStopped by Ctrl-C.", err=True)
            raise click.exceptions.Exit(128 + signal.SIGINT) from None
        except UserError as error:
            raise Failure(str(error)) from error
        except ValueError as error:
            # tensorlite reads its environment variables when it is imported, and a wrong value is the user's mistake.
            if str(error).startswith("TENSORLITE_"):
                raise Failure(str(error)) from error
            raise
        except OSError as error:
            raise os_failure(error) from None
        except MemoryError as error:
            raise Failure(
                f"not enough memory: {error or 'none is left'}. Try a smaller --batch-size, --block-size or model; "
                "`python -m gpt info` prints the memory of a step"
            ) from error
        except ModuleNotFoundError as error:
            if (error.name or "gpt").partition(".")[0] in ("gpt", "tensorlite"):  # This is a bug.
                raise
            extra = EXTRAS.get((error.name or "").partition(".")[0], "gpt,plot")
            raise Failure(f"this needs the package {error.name}: pip install 'tensorlite[{extra}]'") from error
        except click.exceptions.Exit:  # Exit is a RuntimeError too.
            raise
        except RuntimeError as error:
            from tensorlite import DeviceError

            if isinstance(error, DeviceError):
                raise Failure(str(error)) from error
            raise


def os_failure(error: OSError) -> Exception:
    """Return the exception for click: `error` itself if the reader has closed our output, which click handles."""
    if error.errno == errno.EPIPE:
        return error
    return Failure(str(error) if error.filename or not error.strerror else f"cannot write the output: {error.strerror}")


def show_version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    """Print the version of tensorlite and exit."""
    if value:
        try:
            import tensorlite
        except ValueError as error:  # an environment variable of tensorlite
            raise Failure(str(error)) from error
        click.echo(f"tensorlite {tensorlite.__version__}")
        ctx.exit()


VERSION: dict[str, Any] = {"is_flag": True, "is_eager": True, "expose_value": False, "callback": show_version}


@click.option("--version", **VERSION, help="Show the version and exit.")
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
    announce_compilation()
