"""Choose the layers of a model that get low-rank matrices, by our names or by those of Hugging Face's transformers.

A fused layer of ours, such as `attn.c_attn` of a Llama, has several parts there: `q_proj`, `k_proj` and `v_proj`.
"""

import re
import warnings
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache

from gpt.checkpoint.base import CheckpointError
from gpt.checkpoint.families import FAMILIES, Family, family_of
from gpt.checkpoint.transfer import row_sizes
from gpt.config import ConfigError, LoraConfig, ModelConfig
from gpt.errors import short
from gpt.model import parameter_shapes
from gpt.model.lora import Part

Plan = dict[str, tuple[Part, ...]]  # for the name of each linear layer, its parts

ALL = "all-linear"  # peft's word for the default
LIST = re.compile(r"\s*[\w.-]+(\s*,\s*[\w.-]+)*\s*,?\s*")  # names with commas between them, no regular expression


def choose(config: ModelConfig, lora: LoraConfig) -> Plan:
    """Return the parts of layers that get low-rank matrices.

    Raises ConfigError if a target matches no linear layer, or if the rank is larger than the smaller side of a matrix.
    """
    plan = {
        layer: chosen
        for layer, parts in all_parts(config).items()
        if (chosen := tuple(part for part in parts if is_target(lora.targets, layer, part)))
    }
    check_targets(config, lora.targets, plan)
    shapes = parameter_shapes(config)
    for layer, parts in plan.items():
        for part in parts:
            check_rank(lora.rank or 0, part, shapes[f"{layer}.weight"][1])
    return plan


def all_parts(config: ModelConfig) -> Plan:
    """Return the parts of every linear layer of a model: one, of its own name, where no family has such a model."""
    family = known_family(config)
    plan: Plan = {}
    for parameter, shape in parameter_shapes(config).items():
        layer = parameter.removesuffix(".weight")
        if len(shape) != 2 or layer.startswith(("wte", "wpe", "previous")):
            continue
        names = (layer,) if family is None else tuple(full_name(family, name) for name in family.names_of(parameter))
        sizes = row_sizes(config, parameter) if len(names) > 1 else [shape[0]]
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        plan[layer] = tuple(Part(name, end - size, end) for name, size, end in zip(names, sizes, ends, strict=True))
    return plan


def known_family(config: ModelConfig) -> Family | None:
    """Return the family of a model, None if there is none."""
    try:
        return FAMILIES[family_of(config)]
    except CheckpointError:
        return None


def full_name(family: Family, name: str) -> str:
    """Return the name of a layer in transformers, for the name of its weight in a family."""
    layer = name.removesuffix(".weight")
    return layer if layer == "lm_head" else family.prefix + layer


def is_target(targets: str, layer: str, part: Part) -> bool:
    """Return whether targets mean a part of a layer. The head is one only where it is named, as in peft."""
    if targets in ("", ALL):
        return layer != "lm_head"
    if LIST.fullmatch(targets):
        return any(ends_with(name, target) for target in names_in(targets) for name in (layer, part.name))
    return any(compiled(targets).fullmatch(name) for name in (layer, part.name))


@cache
def compiled(targets: str) -> re.Pattern[str]:
    """Return a regular expression. Raises ConfigError if it is none, or one that Python refuses."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of a meaning that sets of characters may get
            return re.compile(targets)
    except (re.error, OverflowError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ConfigError(f"lora.targets = {short(targets)}: not a regular expression ({reason})") from None


def names_in(targets: str) -> list[str]:
    """Return the names in a list with commas."""
    return [name for part in targets.split(",") if (name := part.strip())]


def ends_with(name: str, target: str) -> bool:
    """Return whether a dotted name is a target, or ends with it."""
    return name == target or name.endswith(f".{target}")


def check_targets(config: ModelConfig, targets: str, plan: Plan) -> None:
    """Raise ConfigError, with the names that there are, for a target that matches no linear layer."""
    if LIST.fullmatch(targets) and targets != ALL:
        found = [name for layer, parts in plan.items() for name in (layer, *(part.name for part in parts))]
        missing = [target for target in names_in(targets) if not any(ends_with(name, target) for name in found)]
    else:
        missing = [] if plan else [targets]
    if not missing:
        return
    known = sorted(set(short_names(config)))
    near = get_close_matches(missing[0].lower(), known, n=1) if len(missing[0]) <= 100 else []
    hint = f". Did you mean {near[0]!r}?" if near else "."
    why = NOT_LINEAR.get(missing[0].rpartition(".")[2], "no linear layer has such a name")
    if missing[0] == "lm_head":
        why = "the head is the token embedding, which has no linear layer"
    raise ConfigError(
        f"lora.targets = {short(targets)}: {short(missing[0])}: {why}{hint} The names are {', '.join(known)}"
    )


# Modules that a user may name, and that are not linear layers.
NOT_LINEAR = {
    **dict.fromkeys(
        ("wte", "wpe", "previous", "embed_tokens"), "an embedding is not a linear layer, and gets no matrices"
    ),
    **dict.fromkeys(
        ("ln_1", "ln_2", "ln_f", "norm", "q_norm", "k_norm", "input_layernorm", "post_attention_layernorm"),
        "a norm is not a linear layer, and gets no matrices",
    ),
}


def short_names(config: ModelConfig) -> Iterator[str]:
    """Yield the last words of the names of all linear layers, ours and those of the family."""
    for layer, parts in all_parts(config).items():
        for name in (layer, *(part.name for part in parts)):
            yield name.rpartition(".")[2]


def check_rank(rank: int, part: Part, inputs: int) -> None:
    """Raise ConfigError if a rank is larger than the smaller side of a matrix."""
    outputs = part.stop - part.start
    if rank > min(outputs, inputs):
        raise ConfigError(
            f"lora.rank = {rank}: larger than the smaller side of {part.name}, {outputs} x {inputs}. Take at most "
            f"{min(outputs, inputs)}"
        )
