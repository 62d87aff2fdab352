"""Report on a run: its summary at the start, and its results at the end."""

import tensorlite as tl
from gpt import checkpoint
from gpt.config import SamplingConfig
from gpt.evaluate import evaluate
from gpt.generation import ControlEscaper, generate, on_terminal, stream
from gpt.runs import better_checkpoint, loss_curve, read
from gpt.tokenizer import start_ids
from gpt.train.adapted import loss_before, take_best, write_adapter, write_merged
from gpt.train.optimizer import is_sharded
from gpt.train.output import say
from gpt.train.precision import precision_text
from gpt.train.progress import evaluation_bar
from gpt.train.trainer import Trainer
from tensorlite import serialization


def summary(trainer: Trainer) -> str:
    """Return the size of the model, the text and the length of the run, in a few lines."""
    c, t, d = trainer.config, trainer.config.train, trainer.dataset
    validation = f"{d.size('val'):,} to validate" if d.size("val") else "no validation set"
    trained = sum(p.numel() for p in trainer.parameters)
    share = "" if c.lora.rank is None else f", {trained:,} of them trained, {trained / trainer.model.num_params():.2%}"
    return (
        f"{c.name}: {trainer.model.num_params():,} parameters{share} ({precision_text(t)}, {trainer.model.device})\n"
        f"{ControlEscaper().escape(c.data.title)}: {d.size('train'):,} tokens to train on, {validation}; "
        f"{d.tokenizer.kind} tokenizer, {d.tokenizer.vocab_size:,} tokens{smaller_vocabulary(trainer)}\n"
        f"{about_epochs(trainer)}"
        f"{about_ranks(trainer)}"
        f"steps {trainer.step} to {t.steps}, each of {t.grad_accum * t.batch_size} {trainer.dataset.unit} "
        f"{c.model.block_size} tokens; writes to {trainer.folder.path}"
    )


def about_ranks(trainer: Trainer) -> str:
    """Return a line about the processes of a run that has several, else an empty string."""
    N, threads = trainer.ranks.size, tl.get_num_threads()
    if N == 1:
        return ""
    shared = "the sequences of a step" + " and the state of the optimizer" * is_sharded(trainer.optimizer)
    return f"{N} processes, {threads} thread{'s' * (threads > 1)} each, share {shared}\n"


def about_epochs(trainer: Trainer) -> str:
    """Return a line about the epochs of a run that has them, else an empty string."""
    t, T = trainer.config.train, trainer.config.model.block_size
    if trainer.order.epoch(T) is None:
        return ""
    names = trainer.config.data.names if len(trainer.dataset.parts) > 1 else ("",)
    parts = [
        f"{source.count('train', T):,} sequences" + (f" of {name}, share {weight:.3g}" if name else "")
        for name, (source, weight) in zip(names, trainer.dataset.parts)
    ]
    drawn = t.steps * t.grad_accum * t.batch_size
    epochs = max(drawn * weight / source.count("train", T) for source, weight in trainer.dataset.parts)
    return ControlEscaper().escape(f"an epoch has {'; '.join(parts)}; the run reads up to {epochs:.3g} epochs") + "\n"


def smaller_vocabulary(trainer: Trainer) -> str:
    """Return a remark if a trained BPE has fewer tokens than the configuration asks for, else an empty string."""
    data, size = trainer.config.data, trainer.dataset.tokenizer.vocab_size
    if data.tokenizer != "bpe" or size >= data.bpe_vocab_size:
        return ""
    return f" instead of {data.bpe_vocab_size:,} (--bpe-vocab-size), because the text has no more pairs to merge"


def report(trainer: Trainer, merge: bool = False) -> None:
    """Print the loss on the validation set and a sample, draw the loss curve, and list the files.

    After low-rank adaptation the model is that of the lowest validation loss, whose adapter is written. merge: write
    the merged model, too.
    """
    take_best(trainer)
    if trainer.dataset.size("val"):
        evaluate_at_the_end(trainer)
    else:
        say("There is no validation set (--val-fraction 0), so there is no loss on one, and no best model")
    adapters = write_merged(trainer) if merge else write_adapter(trainer)
    print_sample(trainer)
    folder = trainer.folder
    written = [*adapters, folder.latest, *([folder.best] if folder.best.exists() else []), folder.metrics.path]
    written += [folder.layers] if folder.layers.exists() else []
    if draw_curve(trainer):
        written.append(folder.curve)
    for path in written:
        say(f"wrote {path}")


def evaluate_at_the_end(trainer: Trainer) -> None:
    """Print the loss on the validation set, or on `train.final_eval_tokens` of it, and write it to the metrics."""
    model, data, limit = trainer.evaluated_model, trainer.dataset, trainer.config.train.final_eval_tokens or None
    T = trainer.config.model.block_size
    tokens, whole = data.predicted("val", T, limit), data.predicted("val", T)
    with evaluation_bar(tokens) as bar:
        with trainer.autocast():
            loss = evaluate(model, data, "val", max_tokens=limit, done=bar.update)
    bits = data.bits_per_char(loss)
    part = {} if tokens == whole else {"final_val_tokens": tokens}
    trainer.metrics.write(step=trainer.step, final_val_loss=loss, final_val_bits_per_char=bits, **part)
    extent = f"the whole set: {data.chars['val']:,} characters"
    if part:
        extent = f"{tokens:,} of {whole:,} tokens, spread evenly; --final-eval-tokens 0 takes all"
    before = loss_before(trainer)
    change = "" if before is None else f"; before the first step it was {before:.4f}"
    say(f"validation loss{trainer.whose()} {loss:.4f} nats per token, {bits:.4f} bits per character ({extent}){change}")


def print_sample(trainer: Trainer) -> None:
    """Print a generated text of `train.sample_chars` characters, by the model with the lowest validation loss."""
    chars, tokenizer = trainer.config.train.sample_chars, trainer.dataset.tokenizer
    if not chars:
        return
    weights = "" if trainer.average is None else ", averaged"
    model, whose = trainer.evaluated_model, weights and ", by the averaged weights"
    better = better_checkpoint(trainer.folder.latest)
    if trainer.config.lora.rank is not None:
        better = None  # The model is that one already.
    if better and better.damage:
        whose = f", by the last model, because {better.damage}"
    elif better:
        model = checkpoint.load(better.path, trainer.config.train.device).model
        which = f"{better.path.name}{weights}"
        whose = f", by the model of step {better.step:,} ({which}), whose validation loss was the lowest"
    ids = generate(model, start_ids(tokenizer), sampling=SamplingConfig(seed=trainer.config.train.seed))
    say(f"\nA sample of {chars} characters{whose}:\n")
    pieces = stream(tokenizer, ids, max_chars=chars)
    if on_terminal():
        for text in ControlEscaper()(pieces):
            say(text, end="")
    else:  # A notebook would show each piece as an output of its own.
        say("".join(pieces), end="")
    say("\n")


def draw_curve(trainer: Trainer) -> bool:
    """Draw the loss curve, or print why there is none. Return whether it was drawn."""
    folder = trainer.folder
    try:
        with serialization.atomic_write(folder.curve) as temporary:
            loss_curve(read(folder.metrics.path), temporary, trainer.config.name)
    except ImportError:
        say(f"no {folder.curve.name}: it needs matplotlib (pip install 'tensorlite[plot]')")
        return False
    except OSError as error:  # The other files are written, so the run itself has succeeded.
        say(f"no {folder.curve.name}: {error.strerror}")
        return False
    return True
