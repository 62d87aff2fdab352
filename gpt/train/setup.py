"""Set up a run: a new one, or one that resumes from a checkpoint."""

import dataclasses
import os
from pathlib import Path
from typing import Any, NamedTuple

import tensorlite as tl
import tensorlite.distributed as dist
from gpt import checkpoint, sources
from gpt.checkpoint import Checkpoint, adapter, lora_targets
from gpt.checkpoint.transfer import with_config
from gpt.config import Config, ConfigError
from gpt.data import DATASETS, Dataset, described, is_folder, load_dataset, open_text, texts_have_carriage_returns
from gpt.errors import extra
from gpt.model import GPT, build_model
from gpt.model.lora import add_lora
from gpt.runs import LATEST, RunFolder
from gpt.tokenizer import CharacterError, Tokenizer
from gpt.train.output import say
from gpt.train.patience import check_patience
from gpt.train.precision import check_precision
from gpt.train.ranks import Ranks
from gpt.train.trainer import Trainer

# The options that may change when a run resumes. A change of any other option would make it another run.
RESUMABLE_OPTIONS = {
    "data.dataset",  # Only the place of the texts may change; `resume` checks that its content did not.
    "train.steps",
    "train.eval_interval",
    "train.eval_batches",
    "train.final_eval_tokens",
    "train.checkpoint_interval",
    "train.keep",
    "train.save_in_background",
    "train.on_save_error",
    "train.on_spike",  # It changes nothing before the first spike.
    "train.spike_factor",
    "train.patience",
    "train.min_delta",
    "train.sample_chars",
    "train.log_layers",
    "train.activation_checkpointing",
    "train.shard_optimizer",  # A checkpoint has the whole state.
    "train.compile",
    "train.device",
    "train.dtype",  # Only if the parameters keep theirs, so not from or to float64.
}


def check_config(function: str, config: object) -> None:
    """Raise TypeError, with what to write, unless `config` is a Config."""
    if isinstance(config, str | Path):
        name = f"{str(config)!r:.80}"
        raise TypeError(f"{function}: expected a Config, got {name}. Write {function}(Config.load({name}))")
    if not isinstance(config, Config):
        raise TypeError(
            f"{function}: expected a Config, got {type(config).__name__}. Config.load(preset, overrides) makes one"
        )


class Parts(NamedTuple):
    """The parts of a new run: its configuration with the size of the vocabulary, its data, its model, and its base.

    base: with low-rank adaptation the path of the model without it, and the SHA-256 of its weights; else None.
    """

    config: Config
    dataset: Dataset
    model: GPT
    base: dict[str, str] | None = None


def build_run(config: Config, folder: RunFolder, init_from: str | Path | None, device: str) -> Parts:
    """Return the parts of a new run on a device."""
    if init_from is not None:
        return build_from(config, folder, init_from, device)
    if config.lora.rank is not None:
        raise ConfigError(f"lora.rank = {config.lora.rank} needs the weights of a model. Use finetune --model")
    dataset = load_dataset(config.data, config.model.block_size)
    config = with_described_data(config).with_vocab_size(dataset.tokenizer.vocab_size)
    tl.manual_seed(config.train.seed)  # Seeds the weights and dropout.
    return Parts(config, dataset, build_model(config.model, device, config.train.parameter_dtype))


def build_from(config: Config, folder: RunFolder, source: str | Path, device: str) -> Parts:
    """Return the parts of a run that starts from the weights of another model, which also gives shape and tokenizer.

    Of `config.model` only the options of dropout and a shorter context are used. Options that do not fit the model are
    refused before its weights are read.
    """
    path = sources.find(source)
    found = checkpoint.load_config(path).model
    plan = {} if config.lora.rank is None else lora_targets.choose(found, config.lora)
    check_texts(config)
    if plan and path.parent.resolve() == folder.path.resolve():
        raise ConfigError(
            f"the run would take the place of its own base in {str(folder.path)!r}. Write elsewhere: --name or --out"
        )
    loaded = checkpoint.load(path, device, dtype=config.train.parameter_dtype)
    if config.model.block_size > found.block_size:
        say(f"The context is {found.block_size} tokens long, because the model {str(source)!r} sees no more")
    changes: dict[str, Any] = {name: getattr(config.model, name) for name in ("dropout", "attention_dropout")}
    changes["block_size"] = min(config.model.block_size, found.block_size)
    if found.rope_scaling != "none":
        changes["rope_original_context"] = found.original_context  # It does not shrink with the context.
    model_config = dataclasses.replace(found, **changes)
    dataset = load_dataset(config.data, model_config.block_size, loaded.tokenizer)
    base = {"path": str(path.resolve()), "sha256": adapter.fingerprint(loaded.model)} if plan else None
    tl.manual_seed(config.train.seed)  # Seeds dropout, and the low-rank matrices.
    model = with_config(loaded.model, model_config, config.train.parameter_dtype).train()
    if plan:
        add_lora(model, plan, config.lora.rank or 0, config.lora.scale, config.lora.dropout)
    config = with_described_data(config).replace({"data.tokenizer": loaded.tokenizer.kind})
    return Parts(dataclasses.replace(config, model=model_config), dataset, model, base)


def device_of(config: Config, group: dist.Group | None) -> str:
    """Return the name of the device of this rank: each of a machine has a GPU of its own, if there are enough."""
    name = config.train.device
    return name if group is None else str(group.local_device(None if name == "auto" else name))


def check_texts(config: Config) -> None:
    """Raise DataError for a text that cannot be read, before anything else is done."""
    for name in config.data.names:
        if not is_folder(name):
            open_text(dataclasses.replace(config.data, dataset=name, weights=None, field=""))


def with_described_data(config: Config) -> Config:
    """Return a configuration with what its folders of tokens decide, whose texts are found from any folder.

    Call it where the texts have just been read.
    """
    return with_absolute_text(dataclasses.replace(config, data=described(config.data)))


def with_absolute_text(config: Config) -> Config:
    """Return a configuration whose texts are found from any folder. Call it where they have just been read."""
    names = [name if name in DATASETS else os.path.abspath(name) for name in config.data.names]
    return config if names == list(config.data.names) else config.replace({"data.dataset": names})


def start(
    config: Config,
    folder: RunFolder | None = None,
    init_from: str | Path | None = None,
    group: dist.Group | None = None,
) -> Trainer:
    """Return a new run in `folder` (`config.run_dir`), after archiving what an earlier run left there.

    init_from: see `train`. group: the ranks that train together, each of which calls this; by default this process.
    """
    check_config("start", config)
    check_precision(config)
    with extra():  # The first checkpoint would need them only after some minutes.
        import filelock  # noqa: F401
        import safetensors  # noqa: F401
        import tqdm  # noqa: F401
    folder = folder or RunFolder(config.run_dir)
    config, dataset, model, base = build_run(config, folder, init_from, device_of(config, group))
    check_patience(config, dataset)
    ranks = Ranks(group)
    ranks.check_same(config, dataset)
    ranks.seed_dropout(config.train.seed)
    if ranks.is_first and (archive := folder.archive_previous_run()):
        say(f"The run that was in {folder.path} is now in {archive}")
    trainer = Trainer(config, dataset, model, folder, base, ranks)
    trainer.is_new = init_from is None
    return trainer


def resume(config: Config, path: str | Path, group: dist.Group | None = None) -> Trainer:
    """Return the run that saved the checkpoint `path`, in the folder of the checkpoint.

    group: the ranks that go on with it together, each of which calls this. There may be more or fewer than before.

    config: that of the checkpoint, except for RESUMABLE_OPTIONS. Raises ConfigError if other options or the text
    differ, CheckpointError if the checkpoint is damaged.
    """
    check_config("resume", config)
    check_precision(config)
    path = Path(path)
    saved = checkpoint.load(path, device_of(config, group), training=True)
    check_resumable(config, saved, path)
    try:
        dataset = load_dataset(config.data, config.model.block_size, saved.tokenizer)
    except CharacterError as error:
        raise other_text(config, saved, path) from error
    check_patience(config, dataset)
    config, base = with_described_data(config), saved.state.get("base")
    trainer = Trainer(config, dataset, saved.model, RunFolder(path.parent), base, Ranks(group))
    with checkpoint.corruption_errors(path):
        text = saved.state["text"]
        trainer.load_state(saved)
    if trainer.dataset.digest != text:
        raise other_text(config, saved, path)
    trainer.ranks.check_same(config, dataset)
    if trainer.ranks.is_first:
        trainer.metrics.truncate_after(trainer.step, evaluated=not trainer.evaluation_due)
        if trainer.folder.layers.exists():
            trainer.folder.layer_records.truncate_after(trainer.step)
    return trainer


def other_text(config: Config, saved: Checkpoint, path: Path) -> ConfigError:
    """Return the error for a text that is not the one of a checkpoint, with what to do."""
    text = f"the text {config.data.title!r} is not the one that {str(path)!r} was trained on"
    if has_carriage_returns(config, saved.tokenizer):
        return ConfigError(
            f"{text}: it has carriage returns, which earlier versions of tensorlite kept and this one reads as line "
            "feeds. A run that began with them cannot continue: start a new one. sample and eval take the checkpoint"
        )
    return ConfigError(f"{text}: restore that text (--data FILE says where it is now), or start a new run")


def has_carriage_returns(config: Config, tokenizer: Tokenizer) -> bool:
    """Return whether the text of a run has carriage returns: a vocabulary of characters tells, or else the file."""
    if tokenizer.by_character:
        return "\r" in tokenizer.decode(range(tokenizer.vocab_size))
    return texts_have_carriage_returns(config.data)


def check_resumable(config: Config, saved: Checkpoint, path: Path) -> None:
    """Raise ConfigError if a run with `config` cannot continue the one that was saved."""
    old, new = saved.config.flatten(), config.flatten()
    same = config.train.parameter_dtype == saved.config.train.parameter_dtype
    kept = RESUMABLE_OPTIONS if same else RESUMABLE_OPTIONS - {"train.dtype"}
    changed = [
        f"{name} = {new[name]!r} instead of {old[name]!r}"
        for name in new
        if new[name] != old[name] and name not in kept
    ]
    if changed:
        raise ConfigError(
            f"a resumed run keeps its options, and these differ from the checkpoint's: {'; '.join(changed)}. "
            "Leave them out, or start a new run"
        )
    if config.train.steps < saved.step:
        raise ConfigError(f"train.steps = {config.train.steps}, but {str(path)!r} has done {saved.step} steps already")
    if path.name != LATEST and (path.parent / LATEST).exists():
        raise ConfigError(
            f"resuming from {str(path)!r} would overwrite {LATEST} in the same folder: copy it elsewhere first"
        )
