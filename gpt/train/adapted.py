"""What fine-tuning adds to a run: the loss before it, and the adapter or the merged model after it."""

import dataclasses
from pathlib import Path

from gpt import checkpoint
from gpt.checkpoint import adapter, native
from gpt.config import LoraConfig
from gpt.evaluate import evaluate
from gpt.model.lora import fold_lora, lora_layers
from gpt.runs import MERGED, better_checkpoint, read
from gpt.train.output import say
from gpt.train.progress import evaluation_bar
from gpt.train.trainer import Trainer

INITIAL = "initial_val_loss"  # the key of the loss before the first step in the metrics


def report_before(trainer: Trainer) -> None:
    """Print the loss on the validation set before the first step, and write it to the metrics."""
    data, limit = trainer.dataset, trainer.config.train.final_eval_tokens or None
    if trainer.step or not data.size("val") or loss_before(trainer) is not None:
        return
    with evaluation_bar(data.predicted("val", trainer.config.model.block_size, limit)) as bar:
        with trainer.autocast():
            loss = evaluate(trainer.evaluated_model, data, "val", max_tokens=limit, done=bar.update)
    trainer.metrics.write(step=0, **{INITIAL: loss})
    say(f"validation loss {loss:.4f} nats per token before the first step")


def loss_before(trainer: Trainer) -> float | None:
    """Return the loss that `report_before` has written, None if there is none."""
    losses = [line[INITIAL] for line in read(trainer.metrics.path) if isinstance(line.get(INITIAL), float)]
    return losses[0] if losses else None


def take_best(trainer: Trainer) -> None:
    """Give the model of a run of low-rank adaptation the matrices of the lowest validation loss."""
    if not list(lora_layers(trainer.evaluated_model)):
        return
    better = better_checkpoint(trainer.folder.latest)
    if better and better.damage:
        say(f"The adapter is that of the last step, because {better.damage}")
    elif better:
        native.load_low_rank(better.path, trainer.evaluated_model)
        say(f"The adapter is that of step {better.step:,} ({better.path.name}), whose validation loss was the lowest")


def write_adapter(trainer: Trainer) -> list[Path]:
    """Write the adapter of a run, if it has one, and return its folder."""
    if trainer.base is None:
        return []
    folder = trainer.folder.path / adapter.FOLDER
    base = trainer.base
    try:
        adapter.save_adapter(trainer.evaluated_model, folder, trainer.config.lora, base["sha256"], base["path"])
    except OSError as error:
        raise checkpoint.CheckpointError(f"cannot write {str(folder)!r}: {error.strerror or error}") from error
    return [folder]


def write_merged(trainer: Trainer) -> list[Path]:
    """Write the adapter of a run, and its model with that adapter merged into the weights; return the paths."""
    written = write_adapter(trainer)
    fold_lora(trainer.evaluated_model)
    path = trainer.folder.path / MERGED
    native.save(
        path,
        config=dataclasses.replace(trainer.config, lora=LoraConfig()),
        tokenizer=trainer.dataset.tokenizer,
        step=trainer.step,
        model=trainer.evaluated_model,
    )
    return [*written, path]
