"""The command `finetune`."""

from pathlib import Path
from typing import Any

import click

from gpt.cli.options import (
    RUNS,
    Callback,
    ConfigCommand,
    Decorator,
    apply_decorators,
    given_options,
    name_of_text,
    section_options,
)
from gpt.cli.processes import exit_status, processes_options, say_checkpoint, start_processes, waiting
from gpt.config import Config

# Where the defaults differ from those of `train`, which begins with random weights.
DEFAULTS: dict[str, Any] = {
    "model.block_size": 256, "optim.lr": 3e-4, "optim.min_lr": 3e-5, "optim.warmup_steps": 10,
    "optim.weight_decay": 0.0, "train.steps": 200, "train.batch_size": 4, "train.eval_interval": 50,
    "train.eval_batches": 4, "train.final_eval_tokens": 8192, "train.checkpoint_interval": 50,
    "train.sample_chars": 200,
}  # fmt: skip
FULL_LR = 3e-5  # without low-rank matrices

# The options of these sections; the model gives the rest.
KEYS = {
    "data": (
        "data.dataset", "data.weights", "data.field", "data.sampling", "data.documents", "data.format",
        "data.val_fraction",
    ),
    "model": ("model.block_size", "model.dropout"),
    "lora": (),
    "optim": (),
    "train": (),
}


def finetune_options(command: Callback) -> Callback:
    """Add an option for each field that a run from the weights of a model has."""
    defaults = Config.load(overrides=DEFAULTS)
    decorators: list[Decorator] = []
    for section, keys in KEYS.items():
        decorators += section_options(getattr(defaults, section), keys)
    return apply_decorators(command, decorators)


@click.command(
    cls=ConfigCommand,
    epilog=f"Without --lora-rank, --lr is {FULL_LR:g}. If --min-lr is not given, it is a tenth of --lr.",
)
@click.option(
    "--model",
    "source",
    metavar="PATH|NAME",
    help="The model to start from: a run, a checkpoint, a Hugging Face folder, a GGUF file, or a name that `models` "
    "lists.",
)
@click.option(
    "--name", help="Name of the run; it writes to runs/NAME.  [default: finetune- and that of the --data file]"
)
@click.option(
    "--merge", is_flag=True, help="Also write the model with the low-rank matrices merged into its weights."
)
@click.option(
    "--resume",
    is_flag=False,
    flag_value="",
    metavar="[PATH]",
    help="Continue from a checkpoint: PATH; without PATH from the newest below runs/. It keeps its configuration.",
)
@processes_options
@finetune_options
def finetune(
    source: str | None,
    name: str | None,
    merge: bool,
    resume: str | None,
    processes: int | None,
    timeout: float | None,
    **fields: Any,
) -> None:
    """Train a model further on a text, or on conversations.

    With --lora-rank, low-rank matrices are trained next to the weights, which stay as they are (LoRA). They are saved
    alone, as an adapter. --data FILE.jsonl has conversations, of which the answers alone are learned.
    """
    overrides = given_options(fields)
    if merge and resume is None and "lora.rank" not in overrides:
        raise click.UsageError(
            "--merge has nothing to merge without --lora-rank: full fine-tuning writes the whole model"
        )
    if resume is None:
        chosen = chosen_config(source, name, overrides)
    elif source is not None or name is not None:
        raise click.UsageError("give --resume alone: the checkpoint knows its model and its name")
    start_processes(processes)
    import gpt.train
    from gpt import checkpoint, runs

    with gpt.train.Interrupt() as interrupt:
        if resume is None:
            done = gpt.train.train(chosen, init_from=source, finetune=True, merge=merge, **waiting(timeout))
        else:
            path = runs.find_checkpoint(Path(resume)) if resume else runs.newest_checkpoint(RUNS)
            say_checkpoint(path)
            kept = checkpoint.load_config(path).replace(overrides)
            if merge and kept.lora.rank is None:
                raise click.UsageError(f"--merge has nothing to merge: {str(path)!r} has no low-rank matrices")
            done = gpt.train.train(kept, resume=path, finetune=True, merge=merge, **waiting(timeout))
    if not done:
        raise click.exceptions.Exit(exit_status(interrupt))


def chosen_config(source: str | None, name: str | None, overrides: dict[str, Any]) -> Config:
    """Return the configuration that a command line asks for. Raises UsageError and ConfigError."""
    data = overrides.get("data.dataset")
    if source is None:
        raise click.UsageError("give the model to start from: --model PATH|NAME. `models` lists names")
    if data is None:
        raise click.UsageError("give what to train on: --data FILE, a text or JSON lines of conversations")
    names = [data] if isinstance(data, str) else list(data)
    title = "-".join(name_of_text(text) for text in names)[:70]
    defaults: dict[str, Any] = {**DEFAULTS, "name": name or f"finetune-{title}"}
    if "data.field" not in overrides and all(Path(text).suffix.lower() == ".jsonl" for text in names):
        defaults["data.format"] = "chat"
    if overrides.get("lora.rank") is None:
        defaults["optim.lr"] = FULL_LR
    rate = overrides.get("optim.lr", defaults["optim.lr"])
    defaults["optim.min_lr"] = float(f"{max(rate, 0.0) / 10:.12g}")
    return Config.load(overrides={**defaults, **overrides})
