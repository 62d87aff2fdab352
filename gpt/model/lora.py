"""Low-rank adaptation of linear layers: small matrices that are trained while the weights of a model stay as they are.

    y = x W^T + b + scale * x A^T B^T        A: (r, in), B: (out, r)

B begins with zeros, so a new layer computes what its base does. Merged, the layer has the weight W + scale * B A. A
layer that computes several projections at once, such as queries, keys and values, has an A and a B for each of them.

Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", sections 4.1 and 4.2.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import tensorlite as tl
import tensorlite.nn.functional as F
from gpt.errors import UserError
from gpt.model.gpt import GPT
from tensorlite import Tensor, nn


class LoraError(UserError, ValueError):
    """A model that cannot have low-rank matrices, or that has none."""


@dataclass(frozen=True)
class Part:
    """A projection inside a linear layer: the rows `start` to `stop` of its weight.

    name: what the family of the model calls it, such as `model.layers.0.self_attn.q_proj`.
    """

    name: str
    start: int
    stop: int


class LowRank(nn.Module):
    """The low-rank matrices of one projection. It maps (..., in) to (..., out)."""

    def __init__(self, part: Part, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.part = part
        self.lora_A = nn.Parameter(base.weight.new_zeros(rank, base.in_features))
        self.lora_B = nn.Parameter(base.weight.new_zeros(part.stop - part.start, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, x: Tensor, scale: float) -> Tensor:
        return F.linear(F.linear(x, self.lora_A) * scale, self.lora_B)

    def product(self) -> Tensor:
        """Return B A, (out, in)."""
        return self.lora_B @ self.lora_A


class LoraLinear(nn.Linear):
    """A linear layer with low-rank matrices. It shares the weight and the bias of `base`, under the same names.

    parts: the projections that get matrices, in the order of their rows. scale: the factor of their product.
    dropout: the probability that an input of the low-rank matrices is zeroed in training, for each part anew.
    """

    def __init__(
        self, base: nn.Linear, parts: Sequence[Part], rank: int, scale: float, dropout: float = 0.0
    ) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self.scale, self.dropout = scale, dropout
        self.parts = nn.ModuleList([LowRank(part, base, rank) for part in parts])
        self._unmerged: tuple[nn.Parameter, ...] = ()

    @property
    def is_merged(self) -> bool:
        """Return whether the weight has the low-rank product in it."""
        return bool(self._unmerged)

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        y = super().forward(input)
        return y if self.is_merged else y + self.low_rank(input)

    def low_rank(self, x: Tensor) -> Tensor:
        """Return what the low-rank matrices add for x (..., in_features); it is zero where no part is."""
        columns, end = [], 0
        for low_rank in (*self.parts, None):
            start = self.out_features if low_rank is None else low_rank.part.start
            if start > end:
                columns.append(tl.zeros(*x.shape[:-1], start - end, device=x.device, dtype=x.dtype))
            if low_rank is not None:
                columns.append(low_rank(F.dropout(x, self.dropout, self.training), self.scale))
                end = low_rank.part.stop
        return columns[0] if len(columns) == 1 else tl.cat(columns, dim=-1)

    def merge(self) -> None:
        """Add the low-rank product to the weight. The base weight is kept, so that `unmerge` gives back its bits."""
        if not self.is_merged:
            before = self.weight
            self.weight = nn.Parameter(before.detach().clone(), requires_grad=False)
            self.add_product()
            self._unmerged = (before,)

    def unmerge(self) -> None:
        """Take back `merge`."""
        if self.is_merged:
            (before,), self._unmerged = self._unmerged, ()
            with tl.no_grad():
                before.array = before.to(self.weight).array  # The layer may have got another dtype or device since.
            self.weight = before

    def add_product(self) -> None:
        """Add the low-rank product to the weight in place."""
        with tl.no_grad():
            for low_rank in self.parts:
                self.weight[low_rank.part.start : low_rank.part.stop] += low_rank.product() * self.scale

    def folded(self) -> nn.Linear:
        """Return a plain layer with the merged weight. It takes the place of this layer, whose weight it changes."""
        if not self.is_merged:
            self.add_product()
        with nn.init.skip_init():
            plain = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None)
        plain.weight, plain.bias = self.weight, self.bias
        return plain.train(self.training)


def add_lora(
    model: GPT, plan: Mapping[str, Sequence[Part]], rank: int, scale: float, dropout: float = 0.0
) -> list[LoraLinear]:
    """Give layers of a model low-rank matrices, and return these layers. All other parameters are frozen.

    plan: for the name of each layer, the parts that get matrices; `gpt.checkpoint.lora_targets.choose` makes one.
    Raises LoraError if a layer is not a plain linear one; the model is then as before.
    """
    layers = linear_layers(model, plan)
    model.requires_grad_(False)
    made = []
    for name, layer in layers.items():
        lora = LoraLinear(layer, plan[name], rank, scale, dropout).train(model.training)
        replace(model, name, lora)
        made.append(lora)
    return made


def linear_layers(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Linear]:
    """Return layers of a model by their names. Raises LoraError if one is not a plain linear layer."""
    layers: dict[str, nn.Linear] = {}
    for name in names:
        layer = model.get_submodule(name)
        if type(layer) is not nn.Linear:
            raise LoraError(
                f"{name}: expected a linear layer with floating-point weights, got {type(layer).__name__}. Load the "
                "model without quantization, and without an adapter"
            )
        layers[name] = layer
    return layers


def lora_layers(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    """Iterate over the names and layers of a model that have low-rank matrices."""
    return ((name, layer) for name, layer in model.named_modules() if isinstance(layer, LoraLinear))


def is_low_rank(name: str) -> bool:
    """Return whether a name in the `state_dict` of a model is that of a low-rank matrix."""
    return name.endswith((".lora_A", ".lora_B"))


def lora_shapes(plan: Mapping[str, Sequence[Part]], inputs: Mapping[str, int], rank: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the low-rank matrices by their names in `state_dict`. inputs: how many each layer has."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, parts in plan.items():
        for i, part in enumerate(parts):
            shapes[f"{layer}.parts.{i}.lora_A"] = (rank, inputs[layer])
            shapes[f"{layer}.parts.{i}.lora_B"] = (part.stop - part.start, rank)
    return shapes


def merge_lora(model: nn.Module) -> None:
    """Merge all layers of a model. Raises LoraError if none has low-rank matrices."""
    for layer in layers_of(model, "merge"):
        layer.merge()


def unmerge_lora(model: nn.Module) -> None:
    """Take back `merge_lora`: each weight has its bits of before. Raises LoraError."""
    for layer in layers_of(model, "unmerge"):
        layer.unmerge()


def fold_lora(model: nn.Module) -> None:
    """Merge all layers and replace them by plain linear layers, whose weights can be trained. Raises LoraError.

    This needs no memory for a second copy of the weights, and cannot be taken back.
    """
    layers_of(model, "fold")
    for name, layer in list(lora_layers(model)):
        replace(model, name, layer.folded())
    model.requires_grad_(True)


def layers_of(model: nn.Module, what: str) -> list[LoraLinear]:
    """Return the layers of a model with low-rank matrices. Raises LoraError if there is none."""
    found = [layer for _, layer in lora_layers(model)]
    if not found:
        raise LoraError(f"{what}: the model has no low-rank matrices, so there is nothing to {what}")
    return found


def replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Put a layer in the place of the one with this name."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)
