"""Training: batches, learning rate, forward, backward, clip, step; and what is measured, saved and printed on the way.

A run writes to one folder: checkpoint.safetensors (the latest, to resume from), best.safetensors (the lowest estimated
loss on the validation set), metrics.jsonl and loss.png.
"""

import hashlib
import math
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
from filelock import FileLock, Timeout

import tensorlite as tl
from gpt import checkpoint
from gpt.config import SECTIONS, Config, ConfigError, options
from gpt.data import Dataset, Split, load_dataset
from gpt.errors import UserError
from gpt.evaluate import as_input, evaluate, mean_loss
from gpt.generation import generate
from gpt.model import GPT
from gpt.runs.metrics import Metrics, read, writing
from gpt.runs.plot import loss_curve
from gpt.tokenizer import start_ids, stream
from gpt.train.progress import Interrupt, Meter, progress_bar, shown, this_python
from tensorlite import Tensor, nn
from tensorlite.optim import lr_scheduler

METRICS = "metrics.jsonl"
CURVE = "loss.png"

# Steps between lines of metrics; the progress bar shows the last one.
LOG_INTERVAL = 10

# What may change when a run is resumed; anything else would make it another run.
MAY_CHANGE = {
    "data.dataset",  # where the text is; that it is the same one is checked
    "train.steps",
    "train.eval_interval",
    "train.eval_batches",
    "train.checkpoint_interval",
    "train.sample_chars",
    "train.device",
}


class TrainingError(UserError, RuntimeError):
    """A run that cannot go on."""


def train(config: Config, resume: Path | None = None) -> bool:
    """Trains a model as `config` says, evaluates it, and prints what it writes. Returns whether it got to the end.

    resume: a checkpoint to go on from, exactly as if there had been no break; `config` is then the one inside, but for
    options in MAY_CHANGE. (More steps stretch the cosine of the learning rate.) Ctrl-C finishes the step and saves; a
    second one stops at once. Raises UserError: a loss that is not finite (TrainingError), other options than the
    checkpoint's (ConfigError), or data or a checkpoint that cannot be used.
    """
    with alone_in(config.run_dir if resume is None else resume.parent):
        run = Run.start(config) if resume is None else Run.resumed(config, resume)
        print(run.summary(), flush=True)
        began, first = time.perf_counter(), run.step
        if not run.optimize():
            folder = shlex.quote(str(run.folder))
            print(f"Stopped after step {run.step} and saved. To go on: {this_python()} -m gpt train --resume {folder}")
            return False
        print(f"{run.step - first} steps in {time.perf_counter() - began:.1f} s")
        run.finish()
    return True


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keeps others from training in this folder meanwhile. Raises TrainingError if one is at it, in any process."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise TrainingError(
                f"another process is training in {str(folder)!r}: wait until it is done, or write elsewhere with "
                "--name or --out"
            ) from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows deletes no file that is open
            (folder / ".lock").unlink()
        lock.release()


def profile(config: Config, steps: int = 20, warmup: int = 5) -> str:
    """A table of where the time of a few steps goes, by op. The run that would have the folder stays as it is."""
    with TemporaryDirectory() as folder:
        dataset, config, model = parts(config)
        run = Run(config, dataset, model, Path(folder))
        for _ in range(warmup):
            run.train_step()
        with tl.profiler.profile() as measured:
            for _ in range(steps):
                run.train_step()
    a_step = 1e3 * measured.seconds / steps
    return f"{measured.table()}\n{steps} steps after {warmup} to warm up; {a_step:.2f} ms a step"


def parts(config: Config) -> tuple[Dataset, Config, GPT]:
    """The data of a new run, its configuration with the size of the vocabulary, and its model."""
    dataset = load_dataset(config.data, config.model.block_size)
    config = config.with_vocab_size(dataset.tokenizer.vocab_size)
    tl.manual_seed(config.train.seed)  # of weights and dropout
    return dataset, config, checkpoint.build(config, config.train.device)


class Run:
    """A run in progress: all that changes from step to step, and the steps."""

    def __init__(self, config: Config, dataset: Dataset, model: GPT, folder: Path) -> None:
        self.config = config
        self.dataset = dataset
        self.model = model
        self.folder = folder
        self.metrics = Metrics(folder / METRICS)
        self.parameters = list(model.parameters())
        self.optimizer = model.configure_optimizer(config.optim)
        self.schedule = self.schedule_after(0)
        self.rng = np.random.default_rng(config.train.seed)  # of the batches
        self.step = 0  # steps done
        self.best = math.inf  # the lowest estimate of the validation loss

    # ---- the loop -------------------------------------------------------------------------------------------

    def optimize(self) -> bool:
        """Trains to the last step, or, returning False, to the one in which Ctrl-C came. Saves either way."""
        t = self.config.train
        meter = Meter(t.grad_accum * t.batch_size * self.config.model.block_size)
        with Interrupt() as interrupt, progress_bar(self.step, t.steps) as bar:
            while self.step < t.steps:
                lr = self.schedule.get_last_lr()[0]
                with meter:
                    meter.add(*self.train_step())
                done, interrupted = self.step == t.steps, interrupt.requested
                evaluating = done or self.step % t.eval_interval == 0
                saving = done or interrupted or self.step % t.checkpoint_interval == 0
                if evaluating or saving or self.step % LOG_INTERVAL == 0:
                    # Raises if a loss is not finite, before anything is saved.
                    bar.set_postfix_str(shown(self.log(meter, lr)), refresh=False)
                bar.update()
                if evaluating:
                    bar.write(self.estimate())
                if saving:
                    self.save(checkpoint.LATEST)
                if interrupted and not done:
                    return False
        return True

    def train_step(self) -> tuple[Tensor, Tensor]:
        """One step of the optimizer. Returns the loss and the norm of the gradient before clipping, both 0-d."""
        grad_accum = self.config.train.grad_accum
        self.optimizer.zero_grad()
        losses = []
        for _ in range(grad_accum):
            x, y = self.batch("train", self.rng)  # (B, T) each
            _, loss = self.model(as_input(self.model, x), as_input(self.model, y))
            loss = loss / grad_accum
            loss.backward()
            losses.append(loss.detach())
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.optim.grad_clip or math.inf)
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        return sum(losses[1:], losses[0]), norm

    def batch(self, split: Split, rng: np.random.Generator) -> tuple[Any, Any]:
        return self.dataset.batch(rng, split, self.config.train.batch_size, self.config.model.block_size)

    def schedule_after(self, step: int) -> lr_scheduler.CosineWithWarmup:
        """The learning rate's schedule, from where it is when `step` steps are done."""
        o = self.config.optim
        end = max(self.config.train.steps, o.warmup_steps)
        return lr_scheduler.CosineWithWarmup(self.optimizer, o.warmup_steps, end, o.min_lr, last_epoch=step - 1)

    def log(self, meter: Meter, lr: float) -> dict[str, Any]:
        """Writes a line of metrics. Raises TrainingError for the first loss or gradient that is not finite."""
        values, averages = meter.read()
        for step, (loss, norm) in enumerate(values, start=self.step - len(values) + 1):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise self.diverged(step, f"the loss is {loss}, the norm of its gradient {norm}")
        line = {"step": self.step, "lr": lr, **averages}
        self.metrics.write(**line)
        return line

    def diverged(self, step: int, what: str) -> TrainingError:
        path, o = self.folder / checkpoint.LATEST, self.config.optim
        clip = f"{o.grad_clip:g}" if o.grad_clip else "off"
        kept = f"{path} is kept, of a step before" if path.exists() else "there is no checkpoint yet"
        return TrainingError(
            f"training diverged at step {step}: {what}. Start again with a lower --lr (it is {o.lr:g}), "
            f"more --warmup-steps ({o.warmup_steps}) or a lower --grad-clip ({clip}). Nothing was saved since; {kept}."
        )

    # ---- evaluation -----------------------------------------------------------------------------------------

    def estimate(self) -> str:
        """Estimates the loss on both splits, from the same random batches each time; keeps the best model."""

        def loss(split: Split) -> float:
            rng = np.random.default_rng([self.config.train.seed, 1])  # not that of training
            return mean_loss(self.model, (self.batch(split, rng) for _ in range(self.config.train.eval_batches)))

        train_loss, val_loss = loss("train"), loss("val")
        if not math.isfinite(train_loss + val_loss):
            raise self.diverged(self.step, f"in an evaluation the loss is {train_loss + val_loss}")
        bits = self.dataset.bits_per_char(val_loss)
        self.metrics.write(step=self.step, train_loss=train_loss, val_loss=val_loss, val_bits_per_char=bits)
        if val_loss < self.best:
            self.best = val_loss
            self.save(checkpoint.BEST)
        return (
            f"step {self.step:>6}   loss: train {train_loss:.4f}, validation {val_loss:.4f} nats a token "
            f"({bits:.4f} bits a character)"
        )

    def finish(self) -> None:
        """The loss on the whole validation set, a sample, the loss curve, and where everything is."""
        loss = evaluate(self.model, self.dataset, "val")
        bits = self.dataset.bits_per_char(loss)
        self.metrics.write(step=self.step, final_val_loss=loss, final_val_bits_per_char=bits)
        print(
            f"validation loss {loss:.4f} nats a token, {bits:.4f} bits a character "
            f"(the whole set: {self.dataset.chars['val']:,} characters)"
        )
        self.print_sample()
        written = [checkpoint.LATEST, checkpoint.BEST, METRICS, CURVE]
        try:
            loss_curve(read(self.folder / METRICS), self.folder / CURVE, self.config.name)
        except ImportError:
            print(f"no {CURVE}: it needs matplotlib (pip install 'tensorlite[plot]')")
            written.remove(CURVE)
        except OSError as error:  # all else is there
            print(f"no {CURVE}: {error.strerror}")
            with suppress(OSError):
                (self.folder / CURVE).unlink(missing_ok=True)  # half a picture
            written.remove(CURVE)
        for name in written:
            print(f"wrote {self.folder / name}")

    def print_sample(self) -> None:
        chars, tokenizer = self.config.train.sample_chars, self.dataset.tokenizer
        if chars:
            ids = generate(self.model, start_ids(tokenizer), seed=self.config.train.seed)
            print(f"\nA sample of {chars} characters:\n")
            for text in stream(tokenizer, ids, max_chars=chars):
                print(text, end="", flush=True)
            print("\n")

    def summary(self) -> str:
        c, t, d = self.config, self.config.train, self.dataset
        return (
            f"{c.name}: {self.model.num_params():,} parameters ({t.dtype}, {self.model.wte.weight.device})\n"
            f"{c.data.dataset}: {len(d.train):,} tokens to train on, {len(d.val):,} to validate; "
            f"{d.tokenizer.kind} tokenizer, {d.tokenizer.vocab_size:,} tokens\n"
            f"steps {self.step} to {t.steps}, each of {t.grad_accum * t.batch_size} sequences of "
            f"{c.model.block_size} tokens; writes to {self.folder}"
        )

    # ---- start, save, resume --------------------------------------------------------------------------------

    @classmethod
    def start(cls, config: Config) -> Self:
        """A new run. What an earlier one left in its folder is set aside."""
        dataset, config, model = parts(config)
        if aside := set_aside(config.run_dir):
            print(f"The run that was in {config.run_dir} is now in {aside}")
        return cls(config, dataset, model, config.run_dir)

    def save(self, name: str) -> None:
        """Writes a checkpoint with all that decides how the run goes on. Raises TrainingError for broken weights."""
        largest = [p.detach().abs().amax() for p in self.parameters]
        if not all(math.isfinite(value.item()) for value in largest):
            raise self.diverged(self.step, "there are weights that are not finite")
        state = {
            "batches": self.rng.bit_generator.state,
            "dropout": tl.get_rng_state(),
            "best": self.best if math.isfinite(self.best) else None,
            "text": digest(self.dataset),
        }
        checkpoint.save(
            self.folder / name,
            config=self.config,
            tokenizer=self.dataset.tokenizer,
            step=self.step,
            model=self.model,
            optimizer=self.optimizer,
            state=state,
        )

    @classmethod
    def resumed(cls, config: Config, path: Path) -> Self:
        """The run that `path` is a checkpoint of, as it was; it goes on in the folder of the checkpoint."""
        saved = checkpoint.load(path, config.train.device, training=True)
        check_resumable(config, saved, path)
        dataset = load_dataset(config.data, config.model.block_size, saved.tokenizer)
        run = cls(config, dataset, saved.model, path.parent)
        with checkpoint.damage(path):
            text, best = saved.state["text"], saved.state["best"]
            run.optimizer.load_state_dict(saved.optimizer)
            run.rng.bit_generator.state = saved.state["batches"]
            tl.set_rng_state(saved.state["dropout"])
            run.step = saved.step
            run.schedule = run.schedule_after(saved.step)
            run.best = math.inf if best is None else float(best)
        if digest(dataset) != text:
            raise ConfigError(
                f"the text {config.data.dataset!r} is not the one that {str(path)!r} was trained on: "
                "bring that back (--data FILE says where it is now), or start a new run"
            )
        run.metrics.go_back_to(run.step)
        return run


def check_resumable(config: Config, saved: checkpoint.Checkpoint, path: Path) -> None:
    """Raises ConfigError if `config` is no continuation of the run that was saved."""
    old, new = dotted(saved.config), dotted(config)
    changed = [f"{k} = {new[k]!r} instead of {old[k]!r}" for k in new if new[k] != old[k] and k not in MAY_CHANGE]
    if changed:
        raise ConfigError(
            f"a resumed run keeps its options, and these differ from the checkpoint's: {'; '.join(changed)}. "
            "Leave them out, or start a new run"
        )
    if config.train.steps < saved.step:
        raise ConfigError(f"train.steps = {config.train.steps}, but {str(path)!r} has done {saved.step} steps already")
    if path.name != checkpoint.LATEST and (path.parent / checkpoint.LATEST).exists():
        raise ConfigError(
            f"resuming from {str(path)!r} would overwrite {checkpoint.LATEST} beside it: copy it elsewhere"
        )


def dotted(config: Config) -> dict[str, Any]:
    """The values of all options by their dotted names."""
    return {"name": config.name} | {key: value for section in SECTIONS for key, _, value in options(config, section)}


def digest(dataset: Dataset) -> str:
    """A fingerprint of both splits' tokens."""
    sha = hashlib.sha256(dataset.train.tobytes())
    sha.update(dataset.val.tobytes())
    return sha.hexdigest()


def set_aside(folder: Path) -> Path | None:
    """Moves what a run left in `folder` to a new folder inside it, and returns that; None if there is nothing."""
    names = [name for name in (checkpoint.LATEST, checkpoint.BEST, METRICS, CURVE) if (folder / name).exists()]
    if not names:
        return None
    number = 1
    while (aside := folder / f"earlier-{number}").exists():
        number += 1
    with writing(folder):
        aside.mkdir()
        for name in names:
            (folder / name).rename(aside / name)
    return aside
