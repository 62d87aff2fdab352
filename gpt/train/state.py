"""The state of a run: what changes from step to step, and a checkpoint keeps."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

import tensorlite as tl
from gpt import checkpoint
from gpt.checkpoint import Checkpoint, Snapshot
from gpt.config import Config
from gpt.data import Dataset, make_order
from gpt.model import GPT
from gpt.runs import Metrics, RunFolder
from gpt.train import failures
from gpt.train.average import WeightAverage
from gpt.train.divergence import describe_weights
from gpt.train.optimizer import configure_optimizer, configure_schedule, is_sharded, saved_options
from gpt.train.patience import Patience
from gpt.train.precision import make_scaler
from gpt.train.progress import Meter
from gpt.train.ranks import Ranks
from gpt.train.saver import Saver
from gpt.train.spikes import SpikeWatch
from tensorlite.optim import lr_scheduler


class RunState:
    """What a run keeps from step to step. `take_snapshot` returns it for a checkpoint, `load_state` continues from one.

    base: of low-rank adaptation, `path` and `sha256` of the model, which no checkpoint has in it.
    ranks: the ranks that train together, by default this process alone.
    """

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        model: GPT,
        folder: RunFolder,
        base: Mapping[str, str] | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        t = config.train
        self.config = config
        self.ranks = ranks or Ranks()
        self.dataset = dataset
        self.model = model
        self.model.activation_checkpointing = t.activation_checkpointing
        self.folder = folder
        if self.ranks.is_first:
            folder.metrics  # noqa: B018 - It opens the file, and tells of a folder that cannot be written.
        self.base = base
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.average = None if t.ema_decay is None else WeightAverage(model, self.parameters, t.ema_decay)
        self.optimizer = configure_optimizer(model, config.optim, self.ranks.group if t.shard_optimizer else None)
        self.schedule = self.schedule_after(0)
        self.scaler = make_scaler(t, model)
        self.rng = np.random.default_rng(t.seed)  # Draws the batches.
        self.order = make_order(config.data.sampling, dataset, self.rng, t.seed)
        self.random_states: list[Any] = []  # Of dropout, of all ranks, at the last step that they agreed to save.
        self.step = 0  # The number of finished steps.
        self.best = math.inf  # The lowest estimate of the validation loss.
        self.evaluation_due = False  # Whether this step's evaluation is still to be done.
        self.patience = Patience(t)
        self.watch = SpikeWatch(t)
        self.saver = Saver(folder, t)
        self.meter = Meter(t.grad_accum * t.batch_size * config.model.block_size)

    @property
    def evaluated_model(self) -> GPT:
        """Return the model that is evaluated and saved as the best one: with the averaged weights, if there are any."""
        return self.model if self.average is None else self.average.model

    @property
    def metrics(self) -> Metrics:
        """Return the file of metrics. Only rank 0 may ask for it."""
        return self.folder.metrics

    def schedule_after(self, step: int) -> lr_scheduler.LRScheduler:
        """Return the schedule of the learning rate in its state after `step` steps."""
        return configure_schedule(self.optimizer, self.config.optim, self.config.train.steps, step)

    def diverged(self, step: int, what: str, details: str = "") -> failures.TrainingError:
        """Return the error for a value that is not finite, once nothing is being saved. details: sentences about it."""
        self.saver.wait()
        return failures.diverged(self.config.optim, self.folder.latest, step, what, details)

    def state_arrays(self) -> dict[str, Any]:
        """Return the arrays of a checkpoint, those of a CPU without a copy. A sharded state is not among them."""
        return checkpoint.snapshot(
            config=self.config, tokenizer=self.dataset.tokenizer, step=self.step, model=self.model,
            optimizer=None if is_sharded(self.optimizer) else self.optimizer,
            average=self.average.model if self.average is not None else None,
        ).arrays  # fmt: skip

    def take_snapshot(self) -> Snapshot:
        """Return the content of a checkpoint of now: everything that decides how the run continues.

        Raises TrainingError if a weight is not finite.
        """
        state: dict[str, Any] = {
            "batches": self.rng.bit_generator.state,
            "dropout": tl.get_rng_state(),
            "best": self.best if math.isfinite(self.best) else None,
            "text": self.dataset.digest,
            "meter": self.meter.get_state(),
            "evaluation_due": self.evaluation_due,
        }
        if self.ranks.size > 1:
            state["dropout_of_ranks"] = self.random_states  # of the last agreement
        for key, part in (("order", self.order), ("patience", self.patience), ("average", self.average),
                          ("spikes", self.watch)):  # fmt: skip
            if part is not None and (own := part.get_state()) is not None:
                state[key] = own
        if self.scaler.is_enabled():
            state["scaler"] = self.scaler.state_dict()
        if self.base is not None:
            state["base"] = dict(self.base)
        content = checkpoint.snapshot(
            config=self.config,
            tokenizer=self.dataset.tokenizer,
            step=self.step,
            model=self.model,
            optimizer=self.optimizer,
            shares_optimizer=not is_sharded(self.optimizer),
            state=state,
            average=self.average.model if self.average is not None else None,
        )
        if not content.is_finite():
            weights = describe_weights(self.model, "now")
            raise self.diverged(self.step, "there are weights that are not finite", weights)
        return content

    def load_state(self, saved: Checkpoint) -> None:
        """Continue from the step, the optimizer and the random numbers of a checkpoint.

        Raises KeyError, TypeError or ValueError, with the key, if the checkpoint is damaged.
        """
        state = saved.state
        if missing := [key for key in ("batches", "dropout", "best", "text") if key not in state]:
            raise KeyError(f"state.{missing[0]}")
        self.check_optimizer(saved)
        try:
            self.optimizer.load_state_dict(saved.optimizer or {})
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"optimizer: {error}") from error
        self.watch.set_state(state.get("spikes"))
        if saved.step > self.watch.skipped and len((saved.optimizer or {})["state"]) < len(self.parameters):
            raise ValueError("optimizer: a parameter has no state")
        if self.average is not None:
            if saved.average is None or "average" not in state:
                raise KeyError("state.average, which config.train.ema_decay needs")
            self.average.set_state(state["average"], saved.average)
        self.rng.bit_generator.state = state["batches"]
        of_ranks = state.get("dropout_of_ranks", [])
        self.ranks.restore_dropout(state["dropout"], of_ranks, self.config.train.seed, saved.step)
        self.step = saved.step
        self.schedule = self.schedule_after(saved.step - self.watch.skipped)
        self.best = math.inf if state["best"] is None else float(state["best"])
        self.meter.set_state(state.get("meter", {"losses": [], "seconds": 0.0}))  # Format 1 does not have it.
        self.patience.set_state(state.get("patience"), self.best)
        self.evaluation_due = state.get("evaluation_due", False)
        if self.order.get_state() is not None:
            if "order" not in state:
                raise KeyError("state.order")
            self.order.set_state(state["order"])
        if "scaler" in state:  # A run that has another dtype now ignores it.
            self.scaler.load_state_dict(state["scaler"])

    def check_optimizer(self, saved: Checkpoint) -> None:
        """Raise ValueError if the options of the saved optimizer are not those of its configuration and step."""
        if saved.step > saved.config.train.steps:
            raise ValueError(f"step: {saved.step} of {saved.config.train.steps} steps")
        found = (saved.optimizer or {})["param_groups"]
        expected = saved_options(self.optimizer)
        if len(found) != len(expected):
            raise ValueError(f"optimizer.param_groups: expected {len(expected)} groups, got {len(found)}")
        for i, (group, own) in enumerate(zip(found, expected)):
            own["lr"] = group.get("lr")
            for key in sorted(own.keys() | group.keys()):
                if repr(group.get(key)) != repr(own.get(key)):  # 1, 1.0 and True are different.
                    raise ValueError(
                        f"optimizer.param_groups[{i}].{key:.80}: expected {own.get(key)!r:.80}, as the configuration "
                        f"says, got {group.get(key)!r:.80}"
                    )
            lr, peak = group["lr"], own["initial_lr"]
            if type(lr) is not float or not 0 <= lr <= max(peak, self.config.optim.min_lr) * (1 + 1e-9):
                raise ValueError(f"optimizer.param_groups[{i}].lr: expected a number from 0 to {peak}, got {lr!r:.80}")
        for index, values in (saved.optimizer or {})["state"].items():
            count = values.get("step", 0)
            if type(count) is not int or not 0 <= count <= saved.step:
                raise ValueError(
                    f"optimizer.numbers.{index}.step: expected an integer from 0 to {saved.step}, got {count!r:.80}"
                )
