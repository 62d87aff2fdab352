"""The checkpoint format of this project: one safetensors file.

Its tensors are `model.<parameter>` and `optimizer.<index>.<moment>`, and `average.<parameter>` if the run averages its
weights (`train.ema_decay`). The rest is JSON in the metadata of the file:
configuration, tokenizer, step, and the state of the random numbers. The file is replaced as a whole, so that weights
always match their configuration. Nothing is pickled. Checksums cover every byte, so that damage in storage or transfer
is detected. A file may come from anybody, so nothing of the size that it claims is made before its shapes are compared.

A run of low-rank adaptation (LoRA) stores the low-rank matrices alone, and the path and the fingerprint of its base.
"""

import copy
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

import tensorlite as tl
from gpt import tokenizer as tokenizers
from gpt.checkpoint import formats
from gpt.checkpoint.adapter import FOLDER, fingerprint
from gpt.checkpoint.base import Checkpoint, CheckpointError, Info, corruption_errors, damaged
from gpt.checkpoint.container import Container, opened, write
from gpt.checkpoint.foreign import refuse_training
from gpt.checkpoint.lora_targets import Plan, choose
from gpt.checkpoint.quantization import check_quantize, quantize_parts
from gpt.checkpoint.transfer import fill_from_parts, with_config
from gpt.config import Config
from gpt.model import GPT, build_model, parameter_shapes, quantize_model
from gpt.model.lora import add_lora, fold_lora, is_low_rank, lora_shapes
from gpt.model.quantized import kind_of
from gpt.tokenizer import Tokenizer
from tensorlite import nn, optim
from tensorlite.quantized import QuantizedMatrix

Array: TypeAlias = NDArray[Any]

# The names of types in safetensors.
DTYPES = {"float32": "F32", "float64": "F64"}
# The names of tensors: of the model, and of the optimizer's state of a parameter.
NAME = re.compile(r"(model|average)\..+|optimizer\.(0|[1-9][0-9]*)\.[a-z_]+")
MODEL, AVERAGE = "model.", "average."  # How the names of weights begin.
SHARED_ON = ("cpu",)  # Types of devices whose arrays a snapshot shares with the model.
# The largest table of sinusoids, in numbers: 1 GiB. It is computed, so that no tensor in the file has its size.
MAX_SINUSOIDS = 2**27


@dataclass
class Snapshot:
    """The content of a checkpoint at one step, in memory.

    header: the JSON of the file, without the configuration and the tokenizer, which `write` adds.
    arrays: parameters and the state of the optimizer as NumPy arrays, by their names in the file.
    shared: the names of arrays that share memory with the model or the optimizer, until `detach`.
    copies: the arrays that `detach` has made. The next snapshot may use their memory, once this one is written.
    """

    config: Config
    tokenizer: Tokenizer
    header: dict[str, Any]
    arrays: dict[str, Array]
    shared: set[str]
    copies: dict[str, Array] = field(default_factory=dict)

    @property
    def step(self) -> int:
        """Return the number of steps after which it was taken."""
        return int(self.header["step"])

    def is_finite(self) -> bool:
        """Return whether all parameters are finite."""
        weights = (array for name, array in self.arrays.items() if name.startswith("model.") and array.size)
        return all(np.isfinite(array.min()) and np.isfinite(array.max()) for array in weights)  # A NaN is both.

    def nbytes(self) -> int:
        """Return the number of bytes in all arrays."""
        return sum(array.nbytes for array in self.arrays.values())

    def detach(self, into: Mapping[str, Array]) -> None:
        """Copy the arrays that share memory, so that training may go on.

        into: arrays of an earlier snapshot, whose memory is used where it fits.
        """
        for name in sorted(self.shared):
            self.arrays[name] = self.copies[name] = copied(self.arrays[name], into.get(name))
        self.shared.clear()

    def write(self, path: str | Path) -> None:
        """Write a checkpoint. After any error `path` still holds the previous file.

        Raises CheckpointError if the file cannot be written.
        """
        path = Path(path)
        tensors = {name: tl.from_numpy(array) for name, array in self.arrays.items()}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            header = {"config": self.config.to_dict(), "tokenizer": self.tokenizer.to_dict(), **self.header}
            write(path, header, tensors)
        except OSError as error:
            raise cannot_write(path, error) from error


def snapshot(
    *,
    config: Config,
    tokenizer: Tokenizer,
    step: int,
    model: GPT,
    optimizer: optim.Optimizer | None = None,
    state: dict[str, Any] | None = None,
    average: GPT | None = None,
    shares_optimizer: bool = True,
) -> Snapshot:
    """Return the content of a checkpoint. The arguments are those of `save`; average: with the averaged weights.

    Arrays of a CPU share memory with the models and the optimizer. Those of another device are copies.

    shares_optimizer: whether the tensors of `optimizer.state_dict()` are the optimizer's own, and not copies.
    """
    low_rank = config.lora.rank is not None
    models = {MODEL: model} if average is None else {MODEL: model, AVERAGE: average}
    tensors = {
        prefix + name: value
        for prefix, each in models.items()
        for name, value in each.state_dict().items()
        if is_low_rank(name) or not low_rank
    }
    moments: dict[str, Any] = {"state": {}, "param_groups": []} if optimizer is None else optimizer.state_dict()
    numbers: dict[str, dict[str, Any]] = {}
    for index, entries in moments["state"].items():
        for name, value in entries.items():
            if isinstance(value, tl.Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
            else:
                numbers.setdefault(str(index), {})[name] = value
    header = {
        "step": step,
        "optimizer": {"numbers": numbers, "param_groups": moments["param_groups"]},
        "state": copy.deepcopy(state or {}),
    }
    arrays = {name: value.detach().cpu().numpy() for name, value in tensors.items()}
    own = (name for name in tensors if shares_optimizer or not name.startswith("optimizer."))
    shared = {name for name in own if tensors[name].device.type in SHARED_ON}
    return Snapshot(config, tokenizer, header, arrays, shared)


def copied(array: Array, into: Array | None) -> Array:
    """Return a copy of an array: in the memory of another one, if that has the same shape and type, or a new one."""
    if into is None or (into.shape, into.dtype) != (array.shape, array.dtype):
        into = np.empty(array.shape, array.dtype)
    np.copyto(into, array)
    return into


def cannot_write(path: Path, error: OSError) -> CheckpointError:
    """Return the error for a checkpoint that cannot be written, in one line."""
    kept = "The previous one is kept" if os.path.exists(path) else "There is no previous one"
    cause: BaseException = error
    while isinstance(cause, OSError) and not cause.errno and cause.__cause__ is not None:
        cause = cause.__cause__
    # The safetensors library gives the number of the system's error in words.
    number = getattr(cause, "errno", None) or next(map(int, re.findall(r"\(os error (\d+)\)", str(cause))), None)
    reason = os.strerror(number) if number else str(cause)
    return CheckpointError(f"cannot write the checkpoint {str(path)!r}: {reason}. {kept}")


def save(
    path: str | Path,
    *,
    config: Config,
    tokenizer: Tokenizer,
    step: int,
    model: GPT,
    optimizer: optim.Optimizer | None = None,
    state: dict[str, Any] | None = None,
) -> None:
    """Write a checkpoint. After any error `path` still holds the previous file.

    optimizer: None writes a model without a state of training, from which no run can resume.
    state: what else training needs to continue, in types that JSON has.

    Raises CheckpointError if the file cannot be written.
    """
    content = snapshot(config=config, tokenizer=tokenizer, step=step, model=model, optimizer=optimizer, state=state)
    content.write(path)


def load(
    path: Path, device: str = "auto", *, training: bool = False, dtype: str = "", quantize: str = "none"
) -> Checkpoint:
    """Read a checkpoint onto `device` (see `train.device`), whose dtype it keeps. Raises CheckpointError, DeviceError.

    Every byte of the file is checked, also those that are not used.

    training: also read the state of the optimizer. Without it, `optimizer` is None and the model in evaluation mode.
        The model then has the averaged weights, if the file has them. With it, they are in `average`.
    quantize: int8 or int4 quantizes each matrix as soon as it is read; none and auto do not.
    """
    # The file is opened once, so that a run that replaces it meanwhile cannot mix two checkpoints.
    with opened(path) as file:
        header = file.header
        if not header["optimizer"]["param_groups"]:
            refuse_training(path, training)
        config = read_config(file)
        with corruption_errors(path, "tokenizer"):
            tokenizer = tokenizers.from_dict(header["tokenizer"])
        check_shapes(file, config)
        check_tokenizer(file, config, tokenizer)
        choice = check_quantize(quantize, device, config.train.parameter_dtype)
        prefix = MODEL if training else used_weights(file)
        with corruption_errors(path):
            if config.lora.rank is not None:
                model = read_low_rank(file, config, device, training, choice)
            else:
                model = read_model(file, config, device, choice, prefix)
            others = ((name, file.read(name)) for name in file.specs if not name.startswith(prefix))
            arrays = {name: array for name, array in others if training}
            moments = optimizer_state(header["optimizer"], arrays) if training else None
        model.train(training)
        average = with_prefix(AVERAGE, arrays) or None
        return Checkpoint(config, tokenizer, header["step"], model, moments, dict(header["state"]), average)


def used_weights(file: Container) -> str:
    """Return how the names of the weights begin that are used where nothing is trained: the averaged ones, if any."""
    return AVERAGE if any(name.startswith(AVERAGE) for name in file.specs) else MODEL


def read_model(file: Container, config: Config, device: str, choice: str, prefix: str) -> GPT:
    """Return the model in an open checkpoint, whose parameters are read one at a time.

    choice: see `check_quantize`. prefix: how the names of its weights begin.
    """

    def parts_of(name: str) -> list[Any]:
        return [file.read(prefix + name)]

    def matrix_of(name: str) -> QuantizedMatrix:
        return quantize_parts(f"{str(file.path)!r}: {name}", parts_of(name), kind_of(choice))

    with nn.init.skip_init():  # The weights are read below.
        model = build_model(config.model, device, config.train.parameter_dtype)
    return fill_from_parts(model, parts_of, None if choice in ("none", "auto") else matrix_of)


def read_low_rank(file: Container, config: Config, device: str, training: bool, choice: str) -> GPT:
    """Return the model of a run of low-rank adaptation: its matrices are part of the weights unless it is trained."""
    prefix = MODEL if training else used_weights(file)
    arrays = {name: file.read(name) for name in file.specs if name.startswith(prefix)}
    model = adapted_model(file.path, config, file.header["state"], device)
    model.load_state_dict(with_prefix(prefix, arrays), strict=False)  # The names were compared before.
    if training:
        return model
    fold_lora(model)
    return model if choice in ("none", "auto") else quantize_model(model, choice)


def adapted_model(path: Path, config: Config, state: dict[str, Any], device: str) -> GPT:
    """Return the base of a run of low-rank adaptation, with low-rank matrices that are still to be loaded.

    Raises CheckpointError if the base is not there any more, or if its weights are others.
    """
    if "base" not in state:
        raise damaged(path, "state.base: it is missing")
    base, adapter = Path(state["base"]["path"]), path.parent / FOLDER
    instead = f"Or give the model where it is now, with --adapter {str(adapter)!r}"
    if not base.exists() or (path.exists() and base.samefile(path)):
        raise CheckpointError(
            f"{str(path)!r} has low-rank matrices for the model {str(base)!r}, which is not there. Put it back. "
            f"{instead}"
        )
    model = formats.load(base, device, dtype=config.train.parameter_dtype).model
    if fingerprint(model) != state["base"]["sha256"]:
        raise CheckpointError(
            f"{str(path)!r} has low-rank matrices for the model {str(base)!r}, which has other weights now. {instead}"
        )
    model = with_config(model, config.model, config.train.parameter_dtype)
    add_lora(model, plan_of(config), config.lora.rank or 0, config.lora.scale, config.lora.dropout)
    return model


def plan_of(config: Config) -> Plan:
    """Return the layers with low-rank matrices of a run."""
    return choose(config.model, config.lora)


def load_low_rank(path: Path, model: GPT) -> None:
    """Read the low-rank matrices of another checkpoint of the same run into a model. Raises CheckpointError.

    They are the averaged ones, if the file has them.
    """
    with opened(path) as file:
        check_shapes(file, read_config(file))
        prefix = used_weights(file)
        arrays = {name: file.read(name) for name in file.specs if name.startswith(prefix)}
    model.load_state_dict(with_prefix(prefix, arrays), strict=False)


def expected_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the model's tensors in a file: of all parameters, or of the low-rank matrices."""
    shapes = parameter_shapes(config.model)
    if config.lora.rank is None:
        return shapes
    plan = plan_of(config)
    return lora_shapes(plan, {layer: shapes[f"{layer}.weight"][1] for layer in plan}, config.lora.rank)


def load_info(path: Path) -> Info:
    """Return the configuration and the step of a checkpoint, without reading its weights. Raises CheckpointError."""
    with opened(path) as file:
        return Info(read_config(file), int(file.header["step"]))


def read_config(file: Container) -> Config:
    """Return the configuration of an open checkpoint. Raises CheckpointError."""
    with corruption_errors(file.path, "config"):
        return Config.from_dict(file.header["config"])


def check_shapes(file: Container, config: Config) -> None:
    """Raise CheckpointError if the tensors of a file are not those of its configuration."""
    if config.model.position == "sinusoidal" and config.model.block_size * config.model.n_embd > MAX_SINUSOIDS:
        raise damaged(file.path, f"config.model.block_size = {config.model.block_size}: too long for sinusoids")
    with corruption_errors(file.path, "config"):
        expected = expected_shapes(config)
    dtype = DTYPES[config.train.parameter_dtype]
    problems = [*shape_problems(file, MODEL, expected)]
    if used_weights(file) == AVERAGE:
        problems += shape_problems(file, AVERAGE, expected)
    problems += [
        *(
            f"wrong type: {name}, expected {dtype}, got {kind}"
            for name, (kind, _) in file.specs.items()
            if kind != dtype
        ),
        *(f"unexpected: {name}" for name in file.specs if not NAME.fullmatch(name)),
    ]
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise damaged(file.path, f"the tensors are not those of config.model: {problems[0]}{more}")


def shape_problems(file: Container, prefix: str, expected: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return what is wrong with the names and the shapes of the weights whose names begin with a prefix."""
    found = {name.removeprefix(prefix): spec for name, spec in file.specs.items() if name.startswith(prefix)}
    shown = "" if prefix == MODEL else prefix
    return [
        *(f"missing: {shown}{name}" for name in expected if name not in found),
        *(f"unexpected: {shown}{name}" for name in found if name not in expected),
        *(
            f"wrong shape: {shown}{name}, expected {shape}, got {found[name][1]}"
            for name, shape in expected.items()
            if name in found and found[name][1] != shape
        ),
    ]


def check_tokenizer(file: Container, config: Config, tokenizer: Tokenizer) -> None:
    """Raise CheckpointError if the tokenizer of a file has another vocabulary than its model."""
    size = config.model.vocab_size
    if tokenizer.vocab_size != size:
        raise damaged(
            file.path, f"config.model.vocab_size: {size} tokens in the model, {tokenizer.vocab_size} in its tokenizer"
        )


def with_prefix(prefix: str, arrays: dict[str, Any]) -> dict[str, tl.Tensor]:
    """Return as Tensors the arrays with names that begin with `prefix`, and remove the prefix from the names."""
    return {
        name.removeprefix(prefix): tl.from_numpy(array) for name, array in arrays.items() if name.startswith(prefix)
    }


def optimizer_state(header: dict[str, Any], arrays: dict[str, Any]) -> dict[str, Any]:
    """Return the `Optimizer.state_dict` that `save` stored."""
    state: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in header["numbers"].items()}
    for name, value in with_prefix("optimizer.", arrays).items():
        index, _, moment = name.partition(".")
        state.setdefault(int(index), {})[moment] = value
    return {"state": state, "param_groups": header["param_groups"]}
