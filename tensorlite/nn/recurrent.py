"""Recurrent layers: RNN, LSTM, GRU and their cells.

A step takes the projected input of all gates, ``gates = W_ih x + b_ih``, and the state. The projections of all steps
are one matrix product; the steps follow one another. H is the size of the state.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

from ..autograd.autocast_mode import lowered
from ..backends.registry import DeviceLike
from ..dtypes import DTypeLike
from ..errors import ShapeError
from ..ops.elementwise import sigmoid, tanh
from ..ops.nn import relu
from ..ops.shape import cat, stack
from ..scalars import fraction_in, int_in
from ..tensors.creation import empty, zeros
from ..tensors.tensor import Tensor
from . import functional as F
from . import init
from .checks import check_tensors, format_tensors
from .module import Module
from .parameter import Parameter

__all__ = ["GRU", "GRUCell", "LSTM", "LSTMCell", "RNN", "RNNCell"]

State: TypeAlias = tuple[Tensor, ...]
"""The state of a layer: (h,), or (h, c) of an LSTM."""
Step: TypeAlias = Callable[[Tensor, State, Tensor, "Tensor | None"], State]
"""Makes the next state from the projected input, the state, and the weight and bias of the state."""


def _tanh_step(gates: Tensor, state: State, weight: Tensor, bias: Tensor | None) -> State:
    """Make a step ``h' = tanh(W_ih x + b_ih + W_hh h + b_hh)``."""
    return (tanh(gates + F.linear(state[0], weight, bias)),)


def _relu_step(gates: Tensor, state: State, weight: Tensor, bias: Tensor | None) -> State:
    return (relu(gates + F.linear(state[0], weight, bias)),)


def _lstm_step(gates: Tensor, state: State, weight: Tensor, bias: Tensor | None) -> State:
    """Make a step of an LSTM: ``c' = f c + i g; h' = o tanh(c')`` for the gates i, f, g, o."""
    h, c = state
    i, f, g, o = (gates + F.linear(h, weight, bias)).chunk(4, -1)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


def _gru_step(gates: Tensor, state: State, weight: Tensor, bias: Tensor | None) -> State:
    """Make a step of a GRU: ``h' = (1 - z) n + z h`` for ``n = tanh(W x + r (U h))`` and the gates r, z."""
    (h,) = state
    x_r, x_z, x_n = gates.chunk(3, -1)
    h_r, h_z, h_n = F.linear(h, weight, bias).chunk(3, -1)
    r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
    n = tanh(x_n + r * h_n)
    return (n + z * (h - n),)


_NONLINEARITIES: dict[str, Step] = {"tanh": _tanh_step, "relu": _relu_step}


def _nonlinearity(name: str, nonlinearity: str) -> Step:
    if nonlinearity not in _NONLINEARITIES:
        raise ValueError(f"{name}: expected nonlinearity 'tanh' or 'relu', got {nonlinearity!r}")
    return _NONLINEARITIES[nonlinearity]


class _Recurrent(Module):
    """The options and parameters of the layers and cells.

    gates: the number of gates of a step. states: the number of tensors in a state. _step: makes a step.
    """

    gates: ClassVar[int] = 1
    states: ClassVar[int] = 1
    _step: Step

    def __init__(self, input_size: int, hidden_size: int, bias: bool) -> None:
        super().__init__()
        name = type(self).__name__
        self.input_size = int_in(name, "input_size", input_size)
        self.hidden_size = int_in(name, "hidden_size", hidden_size)
        if self.hidden_size < 1:
            raise ValueError(f"{name}: expected a hidden_size of 1 or more, got {hidden_size}")
        self.bias = bias

    def _add_parameters(self, suffix: str, input_size: int, device: DeviceLike, dtype: DTypeLike | None) -> None:
        rows = self.gates * self.hidden_size
        for kind, shape in (("weight_ih", (rows, input_size)), ("weight_hh", (rows, self.hidden_size))):
            setattr(self, kind + suffix, Parameter(empty(shape, device=device, dtype=dtype)))
        for kind in ("bias_ih", "bias_hh"):
            value = Parameter(empty(rows, device=device, dtype=dtype)) if self.bias else None
            self.register_parameter(kind + suffix, value)

    def reset_parameters(self) -> None:
        """Draw new initial values, uniform between ``-1 / sqrt(H)`` and ``1 / sqrt(H)``."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def _state(self, hx: Any, like: Tensor, shape: tuple[int, ...]) -> State:
        """Return the initial state as a tuple of tensors of this shape; zeros if ``hx`` is None."""
        name = type(self).__name__
        if hx is None:
            hx = (zeros(shape, dtype=like.dtype, device=like.device),) * self.states
        state = tuple(hx) if isinstance(hx, (tuple, list)) else (hx,)
        if len(state) != self.states or (self.states > 1 and isinstance(hx, Tensor)):
            raise TypeError(f"{name}: expected hx to be {'a pair (h, c)' if self.states > 1 else 'a Tensor'} or None")
        for s in state:
            check_tensors(name, input=like, hx=s)
            if s.shape != shape:
                raise ShapeError(f"{name}({format_tensors(like, s)}): expected hx of shape {shape}")
        return tuple(map(lowered, state))

    def _result(self, state: State) -> Any:
        return state[0] if self.states == 1 else state


class _RecurrentLayer(_Recurrent):
    """Several layers over a sequence, in one direction or two."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: DeviceLike = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias)
        name = type(self).__name__
        self.num_layers = int_in(name, "num_layers", num_layers)
        if self.num_layers < 1:
            raise ValueError(f"{name}: expected num_layers of 1 or more, got {num_layers}")
        self.batch_first, self.bidirectional = batch_first, bidirectional
        self.dropout = fraction_in(name, "dropout", dropout)
        self.directions = 2 if bidirectional else 1
        for layer in range(self.num_layers):
            size = self.input_size if layer == 0 else self.directions * self.hidden_size
            for suffix in self._suffixes(layer):
                self._add_parameters(suffix, size, device, dtype)
        self.reset_parameters()

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}", f"_l{layer}_reverse"][: self.directions]

    def forward(self, input: Tensor, hx: Any = None) -> tuple[Tensor, Any]:
        """Map a sequence to the states of the last layer, and return them with the last state of every layer.

        input: (L, N, input_size) for L steps and N sequences; (N, L, input_size) with ``batch_first``; or (L,
            input_size) for one sequence.
        hx: the initial state, (D num_layers, N, H) for D directions, without N for one sequence; None is zeros. An LSTM
            takes a pair of these.

        Returns the states (L, N, D H), laid out as the input is, and the last state, shaped as ``hx``. Raises
        ShapeError for shapes that do not fit, and for a sequence without steps.
        """
        name = type(self).__name__
        check_tensors(name, input=input)
        if input.ndim not in (2, 3) or input.shape[-1] != self.input_size:
            raise ShapeError(
                f"{name}({format_tensors(input)}): expected (L, N, {self.input_size}), or (L, {self.input_size})"
            )
        single = input.ndim == 2
        x = input.unsqueeze(1) if single else input.transpose(0, 1) if self.batch_first else input
        if not len(x):
            raise ShapeError(f"{name}({format_tensors(input)}): expected a sequence of at least one step")
        count = self.directions * self.num_layers
        shape = (count, self.hidden_size) if single else (count, x.shape[1], self.hidden_size)
        state = self._state(hx, input, shape)
        if single:
            state = tuple(s.unsqueeze(1) for s in state)
        last: list[State] = []
        for layer in range(self.num_layers):
            if layer and self.dropout:
                x = F.dropout(x, self.dropout, self.training)
            outs = []
            for suffix in self._suffixes(layer):
                out, final = self._run(x, tuple(s[len(last)] for s in state), suffix)
                outs.append(out)
                last.append(final)
            x = outs[0] if len(outs) == 1 else cat(outs, -1)
        final_state = tuple(stack(list(parts), 0) for parts in zip(*last, strict=True))
        if single:
            x, final_state = x.squeeze(1), tuple(s.squeeze(1) for s in final_state)
        elif self.batch_first:
            x = x.transpose(0, 1)
        return x, self._result(final_state)

    def _run(self, x: Tensor, state: State, suffix: str) -> tuple[Tensor, State]:
        """Return the states of one layer in one direction, (L, N, H), and the last one."""
        weight_ih, weight, bias_ih, bias = (
            getattr(self, kind + suffix) for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        gates, outs = F.linear(x, weight_ih, bias_ih).unbind(0), []
        backwards = suffix.endswith("_reverse")
        for step_gates in reversed(gates) if backwards else gates:
            state = self._step(step_gates, state, weight, bias)
            outs.append(state[0])
        return stack(outs[::-1] if backwards else outs, 0), state

    def extra_repr(self) -> str:
        """Return the options for ``repr``."""
        return (
            f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, bias={self.bias}, "
            f"batch_first={self.batch_first}, dropout={self.dropout}, bidirectional={self.bidirectional}"
        )


class RNN(_RecurrentLayer):
    """Layers that compute ``h' = tanh(W_ih x + b_ih + W_hh h + b_hh)`` for each step of a sequence.

    input_size, hidden_size: the sizes of x and of the state h, H.
    num_layers: the number of layers; each reads the states of the one below it.
    nonlinearity: "tanh" or "relu".
    bias: whether there are biases.
    batch_first: whether sequences are (N, L, ...) instead of (L, N, ...).
    dropout: the probability of the dropout between layers.
    bidirectional: whether a second set of layers reads the sequence from its end; their states are appended.
    device, dtype: those of the parameters; None is the default.

    Parameters of layer k: weight_ih_lk (G H, inputs), weight_hh_lk (G H, H), bias_ih_lk and bias_hh_lk (G H,), for G
    gates; those of the second direction end in ``_reverse``. They start uniform between ``-1 / sqrt(H)`` and ``1 /
    sqrt(H)``.

    Calling it returns the states and the last state, see ``forward``. Raises ValueError for options out of range.
    Source: Elman, "Finding Structure in Time", 1990.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: DeviceLike = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        step = _nonlinearity("RNN", nonlinearity)
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype)
        self.nonlinearity, self._step = nonlinearity, step


class LSTM(_RecurrentLayer):
    """Layers of long short-term memory, with a state (h, c) and the gates i, f, g, o::

        c' = sigmoid(f) c + sigmoid(i) tanh(g)
        h' = sigmoid(o) tanh(c')

    The options and parameters are those of :class:`RNN`, with four gates in this order.
    Source: Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997; Gers et al., "Learning to Forget", 2000.
    """

    gates = 4
    states = 2
    _step = staticmethod(_lstm_step)


class GRU(_RecurrentLayer):
    """Layers of gated recurrent units, with the gates r, z, n::

        r, z = sigmoid(W x + U h), sigmoid(W x + U h)
        n = tanh(W x + r (U h))
        h' = (1 - z) n + z h

    The options and parameters are those of :class:`RNN`, with three gates in this order.
    Source: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation",
    2014.
    """

    gates = 3
    _step = staticmethod(_gru_step)


class _RecurrentCell(_Recurrent):
    """One step of one layer."""

    weight_ih: Parameter
    weight_hh: Parameter
    bias_ih: Parameter | None
    bias_hh: Parameter | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: DeviceLike = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias)
        self._add_parameters("", self.input_size, device, dtype)
        self.reset_parameters()

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """Return the state after an input (N, input_size) or (input_size,), (N, H) or (H,); an LSTM's is a pair.

        hx: the state before; None is zeros. Raises ShapeError for shapes that do not fit.
        """
        name = type(self).__name__
        check_tensors(name, input=input)
        if input.ndim not in (1, 2) or input.shape[-1] != self.input_size:
            raise ShapeError(
                f"{name}({format_tensors(input)}): expected (N, {self.input_size}), or ({self.input_size},)"
            )
        state = self._state(hx, input, (*input.shape[:-1], self.hidden_size))
        gates = F.linear(input, self.weight_ih, self.bias_ih)
        return self._result(self._step(gates, state, self.weight_hh, self.bias_hh))

    def extra_repr(self) -> str:
        """Return the options for ``repr``."""
        return f"{self.input_size}, {self.hidden_size}, bias={self.bias}"


class RNNCell(_RecurrentCell):
    """One step of an :class:`RNN`. weight_ih: (H, input_size), weight_hh: (H, H), bias_ih and bias_hh: (H,) or None."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: DeviceLike = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        step = _nonlinearity("RNNCell", nonlinearity)
        super().__init__(input_size, hidden_size, bias, device, dtype)
        self.nonlinearity, self._step = nonlinearity, step


class LSTMCell(_RecurrentCell):
    """One step of an :class:`LSTM`. The parameters are those of :class:`RNNCell`, with 4 H rows."""

    gates = 4
    states = 2
    _step = staticmethod(_lstm_step)


class GRUCell(_RecurrentCell):
    """One step of a :class:`GRU`. The parameters are those of :class:`RNNCell`, with 3 H rows."""

    gates = 3
    _step = staticmethod(_gru_step)
