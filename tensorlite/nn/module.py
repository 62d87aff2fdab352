"""Module: a function with parameters, built from other modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ..autograd import version_counter
from ..autograd.grad_mode import no_grad
from ..dtypes import float16, float32, float64, is_floating
from ..errors import DTypeError
from ..tensors.tensor import RemovableHandle, Tensor
from .hooks import Hook, add_hook, call_with_hooks
from .parameter import Parameter, clear_grads

__all__ = ["LoadResult", "Module"]

M = TypeVar("M", bound="Module")


class LoadResult(NamedTuple):
    """What :meth:`Module.load_state_dict` found different: names it missed, and names it did not know."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """Base class of all layers and models: subclass it, call ``super().__init__()``, and define ``forward``.

    Parameters and Modules assigned as attributes belong to the module: ``parameters()``, ``state_dict()``, ``to()`` and
    the like find them, by attribute name, in the order of assignment. What is found twice (tied weights) is one
    parameter with two names: it is listed once, saved under both, and stays tied.
    """

    training: bool
    """Whether layers such as Dropout behave as in training; see :meth:`train` and :meth:`eval`."""

    _buffers: dict[str, bool]  # name -> whether it is part of the state_dict
    _hooks: list[Hook] | None = None  # an attribute of the module from its first hook on

    def __init__(self) -> None:
        self._buffers = {}
        self.training = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._hooks:
            return call_with_hooks(self, self.forward, self._hooks, args, kwargs)
        return self.forward(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What calling the module computes. Every subclass defines it."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward()")

    # ---- attributes -------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, (Parameter, Module)):
            self._require_init(f"assigning {name!r}")
            if name in self._buffers:
                del self._buffers[name]
        elif value is not None:
            before = vars(self).get(name)
            if isinstance(before, (Parameter, Module)):
                kind = "Parameter" if isinstance(before, Parameter) else "Module"
                raise TypeError(
                    f"{type(self).__name__}.{name} is a {kind}, and {type(value).__name__} is not: assign a {kind} or "
                    f"None"
                )
            if name in vars(self).get("_buffers", ()) and not isinstance(value, Tensor):
                raise TypeError(
                    f"{type(self).__name__}.{name} is a buffer, and {type(value).__name__} is not a Tensor: "
                    f"assign a Tensor or None"
                )
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:  # called for what is not there
        self._require_init(f"asking for {name!r}", name)
        raise AttributeError(f"{type(self).__name__!r} module has no attribute {name!r}", name=name, obj=self)

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        vars(self).get("_buffers", {}).pop(name, None)

    def _require_init(self, doing: str, name: str = "") -> None:
        if "_buffers" not in vars(self):
            cls = type(self).__name__
            message = f"{cls}: call super().__init__() in {cls}.__init__ before {doing}"
            raise AttributeError(message, name=name, obj=self)

    def _register(self, what: str, name: str, value: Any, kind: type) -> None:
        self._require_init(f"registering {name!r}")
        cls = type(self).__name__
        if not isinstance(name, str) or not name or "." in name:
            raise KeyError(f"{cls}: the name of a {what} must be a string, not empty and without dots: {name!r}")
        if hasattr(self, name) and not isinstance(vars(self).get(name, ...), (Tensor, Module, type(None))):
            raise KeyError(f"{cls}: a {what} cannot be called {name!r}: the module has that attribute already")
        if value is not None and not isinstance(value, kind):
            raise TypeError(f"{cls}: {what} {name!r} must be a {kind.__name__} or None, got {type(value).__name__}")
        setattr(self, name, value)

    def register_parameter(self, name: str, value: Parameter | None) -> None:
        """Same as assigning the attribute; None says that an optional parameter is not there."""
        self._register("parameter", name, value, Parameter)

    def register_buffer(self, name: str, value: Tensor | None, persistent: bool = True) -> None:
        """Make a Tensor that is not trained part of the module: it moves with ``to``, and is saved if persistent."""
        self._register("buffer", name, value, Tensor)
        self._buffers[name] = persistent

    def add_module(self, name: str, module: Module | None) -> None:
        """Same as assigning the attribute; ``name`` need not be an identifier. Raises KeyError if it is taken."""
        self._register("module", name, module, Module)

    # ---- hooks --------------------------------------------------------------------------------

    def _add_hook(self, hook: Hook, prepend: bool) -> RemovableHandle:
        hooks = [] if self._hooks is None else self._hooks
        handle = add_hook(hooks, hook, prepend)
        object.__setattr__(self, "_hooks", hooks)
        return handle

    def has_hooks(self) -> bool:
        """Return whether a hook is registered on this module itself; the modules inside it are not asked."""
        return bool(self._hooks)

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args)`` before each forward. What it returns, if not None, replaces the arguments.

        hook: returns None, a tuple of positional arguments, or one argument. With ``with_kwargs`` it is called as
            ``hook(module, args, kwargs)``, and returns None or a tuple ``(args, kwargs)``.
        prepend: call it before the hooks that are registered already, instead of after them.

        Returns a handle whose ``remove()`` removes the hook; it can be used as a context manager. Hooks are copied by
        ``deepcopy`` and pickled with the module; they are not part of its ``state_dict``.
        """
        return self._add_hook(Hook("forward_pre", hook, with_kwargs), prepend)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args, output)`` after each forward. What it returns, if not None, replaces the output.

        prepend: call it before the hooks that are registered already, instead of after them.
        with_kwargs: call it as ``hook(module, args, kwargs, output)``.
        always_call: call it even if the forward or another hook raises an error; then ``output`` may be None.

        Only a call of the module runs its hooks; ``module.forward(...)`` does not. Returns a handle, see
        :meth:`register_forward_pre_hook`.

            activations = {}
            with model.head.register_forward_hook(lambda module, args, output: activations.update(head=output)):
                model(x)
        """
        return self._add_hook(Hook("forward", hook, with_kwargs, always_call), prepend)

    def register_full_backward_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_output)`` in backward, once the gradients of the module's outputs are known.

        grad_output: a tuple with a gradient for each output; None for those that no gradient has reached.
        hook: returns None, or the gradients to use instead. It must not change ``grad_output`` in place.
        prepend: call it before the hooks that are registered already, instead of after them.

        The module must return a Tensor or a tuple of Tensors. Returns a handle, see :meth:`register_forward_pre_hook`.
        """
        return self._add_hook(Hook("full_backward_pre", hook), prepend)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_input, grad_output)`` in backward, once the gradients of the inputs are known.

        grad_input: a tuple with a gradient for each positional argument, None for those that are not Tensors. It is
            zeros for Tensors that do not require gradients, and for those that no gradient has reached.
        grad_output: a tuple with a gradient for each output; None for those that no gradient has reached.
        hook: returns None, or the gradients to use instead of ``grad_input``. It must not change its arguments in
            place.
        prepend: call it before the hooks that are registered already, instead of after them.

        If no argument requires gradients, the hook is called when the gradients of the outputs are known. The module
        must return a Tensor or a tuple of Tensors. Returns a handle, see :meth:`register_forward_pre_hook`.
        """
        return self._add_hook(Hook("full_backward", hook), prepend)

    # ---- what is inside ---------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly inside this one, each once."""
        seen = set()
        for name, value in list(vars(self).items()):
            if isinstance(value, Module) and value not in seen:
                seen.add(value)
                yield name, value

    def children(self) -> Iterator[Module]:
        """The modules directly inside this one, each once."""
        return (module for _, module in self.named_children())

    def named_modules(self, prefix: str = "", remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        """This module and all inside it, outermost first, with their dotted names below ``prefix``."""
        return self._walk(prefix, set() if remove_duplicate else None)

    def _walk(self, prefix: str, seen: set[Module] | None) -> Iterator[tuple[str, Module]]:
        if seen is not None:
            if self in seen:
                return
            seen.add(self)
        yield prefix, self
        for name, value in list(vars(self).items()):
            if isinstance(value, Module):
                yield from value._walk(f"{prefix}.{name}" if prefix else name, seen)

    def modules(self) -> Iterator[Module]:
        """This module and all inside it, each once."""
        return (module for _, module in self.named_modules())

    def _named_tensors(
        self, own: Callable[[Module], Iterator[tuple[str, Any]]], prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        seen = set()
        for path, module in self.named_modules(prefix, remove_duplicate) if recurse else [(prefix, self)]:
            for name, value in own(module):
                if remove_duplicate and value in seen:
                    continue
                seen.add(value)
                yield f"{path}.{name}" if path else name, value

    def _own_parameters(self) -> Iterator[tuple[str, Parameter]]:
        self._require_init("asking for its parameters")
        return ((name, value) for name, value in vars(self).items() if isinstance(value, Parameter))

    def _own_buffers(self, transient: bool = True) -> Iterator[tuple[str, Tensor]]:
        self._require_init("asking for its buffers")
        for name, persistent in self._buffers.items():
            value = getattr(self, name)
            if value is not None and (persistent or transient):
                yield name, value

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """All parameters with their dotted names; one with several comes once, unless ``remove_duplicate`` is False."""
        return self._named_tensors(Module._own_parameters, prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """All parameters, each once: what an optimizer takes."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """All buffers with their dotted names, persistent or not."""
        return self._named_tensors(Module._own_buffers, prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """All buffers, each once."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    # ---- state ------------------------------------------------------------------------------

    def _named_state(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        def own(module: Module) -> Iterator[tuple[str, Tensor]]:
            yield from module._own_parameters()
            yield from module._own_buffers(transient=False)

        return self._named_tensors(own, prefix, True, False)

    def state_dict(self, prefix: str = "", keep_vars: bool = False) -> dict[str, Tensor]:
        """The parameters and persistent buffers by name, as detached Tensors that share the module's memory.

        ``keep_vars`` gives the Parameters themselves. A tied parameter stands under each of its names.
        """
        named = self._named_state(prefix.removesuffix("."))
        return {name: value if keep_vars else value.detach() for name, value in named}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> LoadResult:
        """Copy values into the parameters and persistent buffers, converted to their dtype and device.

        Of a tied parameter one name is enough. Either all of it is loaded or nothing: one RuntimeError lists every name
        that is missing or unexpected (these two pass if not ``strict``) and every value that has the wrong shape.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(
                f"{type(self).__name__}.load_state_dict: expected a dict of names and Tensors, got "
                f"{type(state_dict).__name__}"
            )
        own = dict(self._named_state())
        given = {own[name] for name in state_dict if name in own}
        missing = [name for name, value in own.items() if name not in state_dict and value not in given]
        unexpected = [name for name in state_dict if name not in own]
        problems = [f"missing: {name}" for name in missing] + [f"unexpected: {name}" for name in unexpected]
        problems = problems if strict else []
        for name, value in state_dict.items():
            if not isinstance(value, Tensor):
                problems.append(f"not a Tensor but {type(value).__name__}: {name}")
            elif name in own and value.shape != own[name].shape:
                problems.append(f"wrong shape: {name} is {own[name].shape} here, {value.shape} in the state_dict")
        if problems:
            listed = "".join(f"\n  {problem}" for problem in problems)
            raise RuntimeError(f"{type(self).__name__}.load_state_dict: the state_dict does not fit the module{listed}")
        for name, value in state_dict.items():
            if name in own:
                target = own[name]
                target.array[...] = value.detach().to(device=target.device, dtype=target.dtype).array
                version_counter.bump_version(target.array)
        return LoadResult(missing, unexpected)

    # ---- modes, devices, dtypes ---------------------------------------------------------------

    def apply(self: M, f: Callable[[Module], object]) -> M:
        """Call ``f`` on every module inside, innermost first, and on this one: to initialise weights, say."""
        for child in self.children():
            child.apply(f)
        f(self)
        return self

    def train(self: M, mode: bool = True) -> M:
        """Put this module and all inside it in training mode, or out of it."""
        if not isinstance(mode, bool):
            raise TypeError(f"{type(self).__name__}.train: mode must be a bool, got {type(mode).__name__}")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: M) -> M:
        """Same as ``train(False)``: no dropout. It does not switch gradients off; ``no_grad`` does."""
        return self.train(False)

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Let all parameters be trained, or freeze them."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or make them zero in place."""
        clear_grads(self.parameters(), set_to_none)

    def _convert(self: M, f: Callable[[Tensor], Tensor]) -> M:
        """Put ``f`` of every parameter, gradient and buffer in its place; Parameters stay the objects they are."""
        buffers: dict[Tensor, Tensor] = {}
        with no_grad():
            for parameter in self.parameters():
                gradient = parameter.grad
                parameter.grad = None
                parameter.array = f(parameter).array
                parameter.grad = None if gradient is None else f(gradient)
            for module in self.modules():
                for name, buffer in module._own_buffers():
                    if buffer not in buffers:
                        buffers[buffer] = f(buffer)
                    setattr(module, name, buffers[buffer])
        return self

    def to(self: M, device: Any = None, dtype: Any = None) -> M:
        """Move parameters and buffers to a device, or convert those of floating point to a dtype, or both; in place.

        As in PyTorch: ``to(device)``, ``to(dtype)``, ``to(device, dtype)``, ``to(tensor)``. Returns the module. Make
        optimizers afterwards. Raises DTypeError if the dtype is not a floating point one.
        """
        if isinstance(device, Tensor):
            device, dtype = device.device, device.dtype
        elif isinstance(device, (np.dtype, type)):
            device, dtype = None, device
        if dtype is not None and not is_floating(dtype):
            cls = type(self).__name__
            raise DTypeError(f"{cls}.to: parameters must be floating point numbers, got {np.dtype(dtype)}")

        def move(x: Tensor) -> Tensor:
            return x.to(device=device, dtype=dtype if is_floating(x.dtype) else None)

        return self._convert(move)

    def cpu(self: M) -> M:
        """Same as ``to("cpu")``."""
        return self.to("cpu")

    def cuda(self: M) -> M:
        """Same as ``to("cuda")``."""
        return self.to("cuda")

    def float(self: M) -> M:
        """Same as ``to(float32)``."""
        return self.to(float32)

    def double(self: M) -> M:
        """Same as ``to(float64)``."""
        return self.to(float64)

    def half(self: M) -> M:
        """Same as ``to(float16)``."""
        return self.to(float16)

    # ---- repr ---------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """What ``repr`` shows between the parentheses: a subclass's options."""
        return ""

    def _child_reprs(self) -> list[tuple[str, str]]:
        """A label and a repr for each line of the nested repr."""
        return [(name, repr(value)) for name, value in vars(self).items() if isinstance(value, Module)]

    def __repr__(self) -> str:
        extra, children = self.extra_repr(), self._child_reprs()
        if not children:
            return f"{type(self).__name__}({extra})"
        lines = extra.split("\n") if extra else []
        lines += [line for label, text in children for line in f"({label}): {text}".split("\n")]
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines) + "\n)"
