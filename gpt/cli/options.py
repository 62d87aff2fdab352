"""Options that several commands share, made from the fields of configurations."""

import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpt.cli.command import Command
from gpt.config import DEFAULT_PRESET, QUANTIZATIONS, SECTIONS, Config, Field, Section, value_type

if TYPE_CHECKING:
    from gpt.checkpoint import Checkpoint
    from gpt.runs import Better

RUNS = Path("runs")

# Names of options that differ from the names of their fields.
OPTION_NAMES = {
    "data.dataset": "data", "data.weights": "data-weights", "train.out_dir": "out",
    "lora.rank": "lora-rank", "lora.alpha": "lora-alpha",
    "lora.dropout": "lora-dropout", "lora.targets": "lora-targets",
}  # fmt: skip
# Sections of a new model's run. Low-rank adaptation needs the weights of a model, so finetune has its options.
TRAIN_SECTIONS = tuple(section for section in SECTIONS if section != "lora")
# Fields without an option: the tokenizer determines the size of the vocabulary.
HIDDEN = {"model.vocab_size"}
METAVARS = {
    "data.dataset": "NAME|FILE|FOLDER", "data.weights": "W,W,...", "train.out_dir": "FOLDER", "train.device": "DEVICE",
}  # fmt: skip

Callback = Callable[..., None]
Decorator = Callable[[Callback], Callback]


class ConfigCommand(Command):
    """A command whose --help groups the options by the sections of a configuration."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {"": [], **{section: [] for section in SECTIONS}}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)):
                section, _, field = (parameter.name or "").partition("__")
                groups[section if field else ""].append(record)
        for section, records in groups.items():
            if not records:
                continue
            with formatter.section(f"{section} options".strip().capitalize()):
                formatter.write_dl(records)


class Numbers(click.ParamType["tuple[float, ...]"]):
    """Numbers with commas between them, such as 0.7,0.3."""

    name = "numbers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r:.80}: expected numbers with commas between them, such as 0.7,0.3", param, ctx)


def apply_decorators(command: Callback, decorators: Iterable[Decorator]) -> Callback:
    """Return the command with all decorators; --help lists their options in this order."""
    for decorator in reversed(list(decorators)):
        command = decorator(command)
    return command


def config_options(command: Callback) -> Callback:
    """Add PRESET, --config, --name and an option for every field of a configuration in TRAIN_SECTIONS."""
    defaults = Config.load(DEFAULT_PRESET)
    decorators: list[Decorator] = [
        click.argument("preset", required=False, metavar="[PRESET]"),
        click.option("--config", metavar="FILE", help="A configuration in TOML, instead of a preset."),
        click.option(
            "--name",
            help="Name of the run; it writes to runs/NAME.  [default: that of the --data file or the preset]",
        ),
    ]
    for section in TRAIN_SECTIONS:
        decorators += section_options(getattr(defaults, section))
    return apply_decorators(command, decorators)


def section_options(defaults: Section, keys: Collection[str] = ()) -> list[Decorator]:
    """Return an option for each field of a section, or for those in `keys`; --help shows the values of `defaults`."""
    return [
        config_option(key, field, value)
        for key, field, value in defaults.options()
        if key not in HIDDEN and (not keys or key in keys)
    ]


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
    if field.metadata["several"]:
        options = {"multiple": True} if kind is str else {"type": Numbers()}
    if choices := field.metadata["choices"]:
        options = {"type": click.Choice(choices)}
    unit = f" {field.metadata['unit']}" if field.metadata["unit"] else ""
    if default == 1:
        unit = unit.removesuffix("s")
    text = field.metadata["help"]
    text = text[0].upper() + text[1:] + "."
    if shown:
        text += f"  [default: {shown}{unit}]"
    return click.option(
        declaration, key.replace(".", "__"), default=None, metavar=METAVARS.get(key), help=text, **options
    )


def given_options(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given, by the dotted names of their fields."""
    # Options that may be given several times are empty tuples if they are not given.
    given = {key: value for key, value in arguments.items() if value is not None and value != ()}
    return {
        key.replace("__", "."): value[0] if isinstance(value, tuple) and len(value) == 1 else value
        for key, value in given.items()
    }


def chosen_config(preset: str | None, config: str | None, overrides: dict[str, Any]) -> Config:
    """Return the Config that a command line asks for. Raises ConfigError, and UsageError for two sources.

    A run on a text file has the name of the file, so that it does not take the place of another text's run.
    """
    if preset and config:
        raise click.UsageError(f"give a preset ({preset}) or --config {config}, not both")
    if not config and "name" not in overrides and (text := overrides.get("data.dataset")):
        from gpt.data import DATASETS

        names = [text] if isinstance(text, str) else text
        title = "-".join(name_of_text(name) for name in names)[:80]
        overrides = overrides if text in DATASETS else {"name": title, **overrides}
    return Config.load(Path(config) if config else preset or DEFAULT_PRESET, overrides)


def name_of_text(path: str) -> str:
    """Return the name of a file without its suffix, as a name of a run, which has ASCII letters, digits, ., _, -."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(path).stem).strip("-._")
    return name[:80] or "text"


adapter_option = click.option(
    "--adapter", metavar="FOLDER", help="A LoRA adapter to use with the model: what finetune or peft has saved."
)


def quantize_option(default: str | None) -> Decorator:
    """Return the option --quantize. default: None for that of `chosen_quantize`."""
    return click.option(
        "--quantize",
        type=click.Choice(QUANTIZATIONS),
        default=default,
        show_default=default or "auto; none without numba",
        help="Weights in 8 or 4 bits, for a model on the CPU; auto keeps those of a GGUF file as they are there, none "
        "makes float32 of all.",
    )


def chosen_quantize(given: str | None) -> str:
    """Return what --quantize says, or else auto.

    Without numba it is none, because products with quantized matrices then take ten times as long as those in float32.
    """
    if given is not None:
        return given
    try:
        from tensorlite import compiled  # noqa: F401
    except ImportError:
        return "none"
    return "auto"


def checkpoint_options(command: Callback) -> Callback:
    """Add --checkpoint, --adapter and --device."""
    return apply_decorators(
        command,
        [
            click.option(
                "--checkpoint",
                "--model",
                "checkpoint",
                metavar="PATH|NAME",
                help="A checkpoint, the folder of a run, a Hugging Face folder, a GGUF file, or a name that `models` "
                f"lists.  [default: the newest below {RUNS}/]",
            ),
            adapter_option,
            click.option(
                "--device",
                default="auto",
                metavar="DEVICE",
                show_default=True,
                help="cpu, cuda or cuda:N; auto takes TENSORLITE_DEVICE, else cpu.",
            ),
        ],
    )


def load_checkpoint(
    path: str | None, device: str, adapter: str | None = None, quantize: str = "none", dtype: str = "float32"
) -> "Checkpoint":
    """Return the checkpoint that a command works on, and print its path to stderr. Raises CheckpointError.

    adapter: the folder of an adapter, which is merged into the weights. quantize, dtype: see `gpt.checkpoint.load`.
    """
    import tensorlite as tl
    from gpt import checkpoint, runs, sources
    from gpt.checkpoint.quantization import check_quantize

    check_quantize(quantize, device, dtype)
    latest = sources.find(path) if path else runs.newest_checkpoint(RUNS)
    better = runs.better_checkpoint(latest)
    exact = path is not None and Path(path).is_file()
    found = latest if exact or better is None or better.damage else better.path
    tl.keep_freed_memory()  # These commands run no backward pass, which would do so.
    if adapter is None:
        other: dict[str, Any] = {} if dtype == "float32" else {"dtype": dtype}
        loaded = checkpoint.load(found, device=device, quantize=quantize, **other)
    else:
        loaded = sources.load_with_adapter(found, adapter, device, dtype, quantize)
    why = "" if path else f", {runs.describe_choice(RUNS, latest)}"
    if loaded.step:
        averaged = "" if loaded.config.train.ema_decay is None else ", averaged weights"
        click.echo(f"checkpoint {found} (step {loaded.step:,}{averaged}{why})", err=True)
    else:
        click.echo(f"model {found}", err=True)
    if better is not None:
        click.echo(about(better, latest, exact), err=True)
    return loaded


def about(better: "Better", latest: Path, exact: bool) -> str:
    """Return a line about a run's best checkpoint. exact: whether the user named the latest one."""
    if better.damage:
        return f"{better.damage}. So this is the last checkpoint, and not that of the lowest validation loss"
    if exact:
        return f"a checkpoint of this run with a lower validation loss: {better.path} (step {better.step:,})"
    last = f"{latest} (step {better.latest_step:,})"
    return f"it has the lowest validation loss of the run; the last checkpoint is {last}"
