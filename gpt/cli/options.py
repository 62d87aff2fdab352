"""Options that several commands share, made from the fields of configurations."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpt.config import DEFAULT_PRESET, SECTIONS, Config, Field, Section, value_type

if TYPE_CHECKING:
    from gpt.checkpoint import Checkpoint

RUNS = Path("runs")

# Names of options that differ from the names of their fields.
OPTION_NAMES = {"data.dataset": "data", "train.out_dir": "out"}
# Fields without an option: the tokenizer determines the size of the vocabulary.
HIDDEN = {"model.vocab_size"}
METAVARS = {"data.dataset": "NAME|FILE", "train.out_dir": "FOLDER", "train.device": "DEVICE"}

Command = Callable[..., None]
Decorator = Callable[[Command], Command]


class ConfigCommand(click.Command):
    """A command whose --help groups the options by the sections of a configuration."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {"": [], **{section: [] for section in SECTIONS}}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)):
                section, _, field = (parameter.name or "").partition("__")
                groups[section if field else ""].append(record)
        for section, records in groups.items():
            with formatter.section(f"{section} options".strip().capitalize()):
                formatter.write_dl(records)


def apply_decorators(command: Command, decorators: Iterable[Decorator]) -> Command:
    """Return the command with all decorators; --help lists their options in this order."""
    for decorator in reversed(list(decorators)):
        command = decorator(command)
    return command


def config_options(command: Command) -> Command:
    """Add PRESET, --config, --name and an option for every field of a configuration."""
    defaults = Config.load(DEFAULT_PRESET)
    decorators: list[Decorator] = [
        click.argument("preset", required=False, metavar="[PRESET]"),
        click.option("--config", metavar="FILE", help="A configuration in TOML, instead of a preset."),
        click.option("--name", help="Name of the run; it writes to runs/NAME.  [default: the preset's name]"),
    ]
    for section in SECTIONS:
        decorators += section_options(getattr(defaults, section))
    return apply_decorators(command, decorators)


def section_options(defaults: Section) -> list[Decorator]:
    """Return an option for each field of a section; --help shows the values of `defaults`."""
    return [config_option(key, field, value) for key, field, value in defaults.options() if key not in HIDDEN]


def config_option(key: str, field: Field, default: Any) -> Decorator:
    """Return the option for one field: the argument `section__field` of the command, None if it is not given."""
    flag = "--" + OPTION_NAMES.get(key, field.name).replace("_", "-")
    declaration, kind = flag, value_type(field)
    options: dict[str, Any] = {"type": kind}
    if kind is bool:
        declaration = f"{flag}/--no-{flag.removeprefix('--')}"
        options = {}
        shown = flag if default else f"--no-{flag.removeprefix('--')}"
    elif default is None:
        shown = ""
    else:
        shown = f"{default:g}" if isinstance(default, float) else str(default)
    if choices := field.metadata["choices"]:
        options = {"type": click.Choice(choices)}
    unit = f" {field.metadata['unit']}" if field.metadata["unit"] else ""
    text = field.metadata["help"]
    text = text[0].upper() + text[1:] + "."
    if shown:
        text += f"  [default: {shown}{unit}]"
    return click.option(
        declaration, key.replace(".", "__"), default=None, metavar=METAVARS.get(key), help=text, **options
    )


def given_options(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given, by the dotted names of their fields."""
    return {key.replace("__", "."): value for key, value in arguments.items() if value is not None}


def chosen_config(preset: str | None, config: str | None, overrides: dict[str, Any]) -> Config:
    """Return the Config that a command line asks for. Raises ConfigError, and UsageError for two sources."""
    if preset and config:
        raise click.UsageError(f"give a preset ({preset}) or --config {config}, not both")
    return Config.load(Path(config) if config else preset or DEFAULT_PRESET, overrides)


def checkpoint_options(command: Command) -> Command:
    """Add --checkpoint and --device."""
    return apply_decorators(
        command,
        [
            click.option(
                "--checkpoint",
                metavar="PATH",
                help=f"A checkpoint or the folder of a run.  [default: the newest below {RUNS}/]",
            ),
            click.option(
                "--device",
                default="auto",
                metavar="DEVICE",
                show_default=True,
                help="cpu, cuda or cuda:N; auto takes TENSORLITE_DEVICE, else cpu.",
            ),
        ],
    )


def load_checkpoint(path: str | None, device: str) -> "Checkpoint":
    """Return the checkpoint that a command works on, and print its path to stderr. Raises CheckpointError."""
    import tensorlite as tl
    from gpt import checkpoint, runs

    found = runs.find_checkpoint(Path(path)) if path else runs.newest_checkpoint(RUNS)
    tl.keep_freed_memory()  # These commands run no backward pass, which would do so.
    loaded = checkpoint.load(found, device=device)
    why = "" if path else f", {runs.describe_choice(RUNS, found)}"
    click.echo(f"checkpoint {found} (step {loaded.step:,}{why})", err=True)
    return loaded
