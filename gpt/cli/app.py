"""The command line: train, sample, score, eval, info and presets.

Options for a configuration are made from the dataclasses in `gpt.config`. Anything heavy is imported by the
command that needs it, so that --help answers at once. A mistake of the user's is one `Error:` and exit
status 2; any other exception is a bug and keeps its traceback.

What this room asks of the others:
    gpt.train.train(config, resume=path_or_None)     trains, evaluates, writes and prints; False after Ctrl-C
    gpt.checkpoint.find(path)                        the checkpoint that a user's path means
    gpt.checkpoint.newest(folder)                    the newest checkpoint below a folder
    gpt.checkpoint.load_config(path)                 a checkpoint's Config, without its weights
    gpt.checkpoint.load(path, device=)               .model, .tokenizer, .config
    gpt.generation.generate(model, ids, temperature=, top_k=, seed=)  yields token ids without end
    gpt.evaluate.log_probs(model, ids)               of ids[1:], each given those before, in nats
    gpt.evaluate.evaluate(model, dataset, split)     mean loss, nats a token, over the whole split
"""

import dataclasses
import errno
import io
import logging
import math
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from gpt.config import DEFAULT_PRESET, SECTIONS, Config, options, preset_names
from gpt.errors import UserError

RUNS = Path("runs")
INTERRUPTED = 130  # the exit status of what SIGINT ended, in any shell

# Where an option's name is not its field's.
OPTION_NAMES = {"data.dataset": "data", "train.out_dir": "out"}
# Set from the tokenizer, never by hand.
HIDDEN = {"model.vocab_size"}
METAVARS = {"data.dataset": "NAME|FILE", "train.out_dir": "FOLDER", "train.device": "DEVICE"}


class Failure(click.ClickException):
    """`Error: ...` and the exit status of a usage error."""

    exit_code = 2


class Commands(click.Group):
    """A group whose commands report a user's mistake in one message."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise Failure(str(error)) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # whoever reads our output has seen enough: click knows
                raise
            raise Failure(str(error)) from error
        except MemoryError as error:
            raise Failure(
                f"not enough memory: {error or 'none is left'}. Try a smaller --batch-size, --block-size or model; "
                "`python -m gpt info` says what a step needs"
            ) from error
        except ModuleNotFoundError as error:
            if (error.name or "gpt").partition(".")[0] in ("gpt", "tensorlite"):  # a bug
                raise
            raise Failure(f"this needs the package {error.name}: pip install 'tensorlite[gpt,plot]'") from error
        except click.exceptions.Exit:  # a RuntimeError too
            raise
        except RuntimeError as error:
            from tensorlite import DeviceError

            if isinstance(error, DeviceError):
                raise Failure(str(error)) from error
            raise


class ConfigCommand(click.Command):
    """A command whose --help lists the options of each section of a configuration apart."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {"": [], **{section: [] for section in SECTIONS}}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)):
                section, _, field = (parameter.name or "").partition("__")
                groups[section if field else ""].append(record)
        for section, records in groups.items():
            with formatter.section(f"{section} options".strip().capitalize()):
                formatter.write_dl(records)


def config_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds PRESET, --config, --name and an option for every field of a configuration."""
    defaults = Config.load(DEFAULT_PRESET)
    decorators = [
        click.argument("preset", required=False, metavar="[PRESET]"),
        click.option("--config", metavar="FILE", help="A configuration in TOML, in place of a preset."),
        click.option("--name", help="Name of the run; it writes to runs/NAME.  [default: the preset's name]"),
    ]
    for section in SECTIONS:
        for key, field, value in options(defaults, section):
            if key not in HIDDEN:
                decorators.append(config_option(key, field, value))
    for decorator in reversed(decorators):
        command = decorator(command)
    return command


def config_option(key: str, field: "dataclasses.Field[Any]", default: Any) -> Callable[..., Any]:
    """The option for one field: the command's argument `section__field`, None where it is not given."""
    flag = "--" + OPTION_NAMES.get(key, field.name).replace("_", "-")
    declaration, kind = flag, field.type
    if field.type is bool:
        declaration, kind = f"{flag}/--no-{flag.removeprefix('--')}", None
        shown = flag if default else f"--no-{flag.removeprefix('--')}"
    else:
        shown = f"{default:g}" if isinstance(default, float) else str(default)
    if choices := field.metadata["choices"]:
        kind = click.Choice(choices)
    unit = f" {field.metadata['unit']}" if field.metadata["unit"] else ""
    text = field.metadata["help"]
    text = text[0].upper() + text[1:] + "."
    if shown:
        text += f"  [default: {shown}{unit}]"
    return click.option(
        declaration, key.replace(".", "__"), type=kind, default=None, metavar=METAVARS.get(key), help=text
    )


def overrides_in(arguments: dict[str, Any]) -> dict[str, Any]:
    """The configuration fields that were given as options, by their dotted names."""
    return {key.replace("__", "."): value for key, value in arguments.items() if value is not None}


def chosen_config(preset: str | None, config: str | None, overrides: dict[str, Any]) -> Config:
    """The Config that a command line asks for."""
    if preset and config:
        raise click.UsageError(f"give a preset ({preset}) or --config {config}, not both")
    return Config.load(Path(config) if config else preset or DEFAULT_PRESET, overrides)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Train a GPT on a text, and let it write."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a character that the terminal does not have is no reason to stop
    logger = logging.getLogger("gpt")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)


@main.command(cls=ConfigCommand, epilog=f"Defaults are those of {DEFAULT_PRESET}; each preset sets its own.")
@config_options
@click.option(
    "--resume",
    is_flag=False,
    flag_value="",
    metavar="[PATH]",
    help="Go on from a checkpoint: PATH, or without one the run's own. Its configuration holds, but for the "
    "options that are given.",
)
@click.option("--profile", is_flag=True, help="Take 25 steps, print where their time goes by op, and write nothing.")
def train(preset: str | None, config: str | None, resume: str | None, profile: bool, **fields: Any) -> None:
    """Train a model, evaluate it, and print what it writes.

    PRESET is one of those that `presets` lists. Ctrl-C finishes the step and saves; --resume goes on.
    """
    overrides = overrides_in(fields)
    chosen = chosen_config(preset, config, overrides)
    from gpt import checkpoint, train

    if profile:
        if resume is not None:
            raise click.UsageError("give --profile or --resume, not both")
        click.echo(train.profile(chosen))
        return
    if resume is None:
        done = train.train(chosen)
    else:
        path = checkpoint.find(Path(resume) if resume else chosen.run_dir)
        done = train.train(checkpoint.load_config(path).replace(overrides), resume=path)
    if not done:
        raise click.exceptions.Exit(INTERRUPTED)


@main.command(cls=ConfigCommand)
@config_options
def info(preset: str | None, config: str | None, **fields: Any) -> None:
    """Print a configuration's parameters, memory and FLOPs a step. Builds no model."""
    from gpt.model.size import report

    click.echo(report(chosen_config(preset, config, overrides_in(fields)).with_expected_vocab_size()))


@main.command()
@click.argument("preset", required=False)
def presets(preset: str | None) -> None:
    """List the presets, or print PRESET as TOML: the start of a --config FILE of your own."""
    from gpt.model.size import parameter_count, scaled

    if preset:
        click.echo(Config.load(preset).to_toml(), nl=False)
        return
    row = "{:<22}{:>7}{:>7}{:>7}{:>9}{:>11}{:>12}{:>9}"
    click.echo(
        row.format("preset", "layers", "heads", "width", "context", "tokenizer", "parameters", "steps")
    )
    for name in preset_names():
        c = Config.load(name)
        m, count = c.model, scaled(parameter_count(c.model), "")
        click.echo(
            row.format(
                name, m.n_layer, m.n_head, m.n_embd, m.block_size, c.data.tokenizer, count, c.train.steps
            )
        )


def checkpoint_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds --checkpoint and --device."""
    command = click.option(
        "--device",
        default="auto",
        metavar="DEVICE",
        show_default=True,
        help="cpu, cuda or cuda:N; auto takes TENSORLITE_DEVICE, else cpu.",
    )(command)
    return click.option(
        "--checkpoint",
        metavar="PATH",
        help=f"A checkpoint or the folder of a run.  [default: the newest below {RUNS}/]",
    )(command)


@main.command()
@checkpoint_options
@click.option("--prompt", help="Text to go on from.  [default: a line break]")
@click.option(
    "--tokens", type=click.IntRange(min=1), help="Length of what is written, in tokens.  [default: see --chars]"
)
@click.option(
    "--chars", type=click.IntRange(min=1), help="Its length in characters.  [default: 500 characters]"
)
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="Logits are divided by it: less is more predictable, 0 always takes the likeliest token.",
)
@click.option("--top-k", type=click.IntRange(min=1), help="Draw from the K likeliest tokens.  [default: all]")
@click.option("--stop", metavar="TEXT", help="Stop where this text would be written.  [default: never]")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the draws.  [default: a new one each time]")
def sample(
    checkpoint: str | None,
    device: str,
    prompt: str | None,
    tokens: int | None,
    chars: int | None,
    temperature: float,
    top_k: int | None,
    stop: str | None,
    seed: int | None,
) -> None:
    """Write text from a checkpoint, as it is generated."""
    if tokens and chars:
        raise click.UsageError("give --tokens or --chars, not both")
    from gpt.generation import generate
    from gpt.tokenizer import start_ids, stream

    loaded = load(checkpoint, device)
    tokenizer = loaded.tokenizer
    seed = secrets.randbits(32) if seed is None else seed
    click.echo(f"seed {seed}", err=True)
    ids = tokenizer.encode(prompt) if prompt else start_ids(tokenizer)
    new = generate(loaded.model, ids, temperature=temperature, top_k=top_k, seed=seed)
    click.echo(prompt or "", nl=False)
    for text in stream(
        tokenizer, new, max_tokens=tokens, max_chars=None if tokens else chars or 500, stop=stop
    ):
        click.echo(text, nl=False)
    click.echo()


@main.command()
@checkpoint_options
@click.argument("text", required=False)
@click.option("--file", metavar="FILE", help="A UTF-8 text file in place of TEXT.")
def score(checkpoint: str | None, device: str, text: str | None, file: str | None) -> None:
    """Print the log-probability and perplexity of TEXT under a model.

    The first token is given, every other one is predicted.
    """
    if (text is None) == (file is None):
        raise click.UsageError("give a TEXT or a --file")
    from gpt.data import read_text
    from gpt.evaluate import log_probs

    text = read_text(Path(file)) if file else text or ""
    loaded = load(checkpoint, device)
    ids = loaded.tokenizer.encode(text)
    if len(ids) < 2:
        raise click.UsageError(f"the text has {len(ids)} tokens, and a score needs at least 2")
    total = float(log_probs(loaded.model, ids).sum())
    given = len(loaded.tokenizer.decode_bytes(ids[:1]).decode(errors="ignore"))
    echo_loss(-total / (len(ids) - 1), -total / math.log(2) / (len(text) - given))
    click.echo(f"log-probability   {total:.3f} nats, of {len(ids) - 1:,} tokens after the first")


@main.command(name="eval")
@checkpoint_options
@click.option("--data", metavar="NAME|FILE", help="Another text.  [default: the one it was trained on]")
def evaluate(checkpoint: str | None, device: str, data: str | None) -> None:
    """Print a model's loss on the whole validation set."""
    from gpt.data import load_dataset
    from gpt.evaluate import evaluate

    loaded = load(checkpoint, device)
    config = loaded.config.replace({"data.dataset": data} if data else {})
    dataset = load_dataset(config.data, config.model.block_size, loaded.tokenizer)
    loss = evaluate(loaded.model, dataset, "val")
    echo_loss(loss, dataset.bits_per_char(loss, "val"))


def load(path: str | None, device: str) -> Any:
    """The checkpoint that a command works on; says which."""
    from gpt import checkpoint

    found = checkpoint.find(Path(path)) if path else checkpoint.newest(RUNS)
    click.echo(f"checkpoint {found}", err=True)
    return checkpoint.load(found, device=device)


def echo_loss(loss: float, bits: float) -> None:
    click.echo(f"loss              {loss:.4f} nats a token")
    click.echo(f"perplexity        {math.exp(loss) if loss < 700 else math.inf:.3f} a token")
    click.echo(f"                  {bits:.4f} bits a character")
