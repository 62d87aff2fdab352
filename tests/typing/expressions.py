"""Expressions with the types that pyright and mypy must find, and wrong calls that both must refuse.

This file never runs: tests/typing/test_type_checkers.py gives it to the type checkers. A line that ends in the comment
``# wrong`` must be an error in each of them, and no other line may be one.
"""

from collections.abc import Callable, Iterator
from typing import Any, assert_type

import numpy as np

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite import Tensor, nn, optim
from tensorlite.ops.reduce import MaxMin
from tensorlite.ops.sorting import Sorted
from tensorlite.optim import lr_scheduler

x = tl.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
i = tl.tensor([[0, 1], [1, 0]])
mask = x > 1

# ---- creation -------------------------------------------------------------------------------

assert_type(x, Tensor)
assert_type(tl.tensor(1.0, dtype=tl.float64), Tensor)
assert_type(tl.as_tensor([1, 2], dtype="int32"), Tensor)
assert_type(tl.from_numpy(np.ones(3)), Tensor)
assert_type(tl.zeros(2, 3), Tensor)
assert_type(tl.zeros((2, 3), dtype=tl.float16), Tensor)
assert_type(tl.ones(2, requires_grad=True), Tensor)
assert_type(tl.empty(2, 3), Tensor)
assert_type(tl.full((2, 3), 1.5), Tensor)
assert_type(tl.eye(3), Tensor)
assert_type(tl.arange(10), Tensor)
assert_type(tl.linspace(0.0, 1.0, 5), Tensor)
assert_type(tl.rand(2, 3), Tensor)
assert_type(tl.randn(2, 3, device="cpu"), Tensor)
assert_type(tl.randint(0, 5, (2, 3)), Tensor)
assert_type(tl.randperm(4), Tensor)
assert_type(tl.zeros_like(x), Tensor)
assert_type(tl.randn_like(x), Tensor)
tl.zeros(2, 3, dtyp=tl.float32)  # wrong
tl.eye("three")  # wrong
tl.linspace(0.0, 1.0)  # wrong
tl.from_numpy([1.0])  # wrong

# ---- attributes -----------------------------------------------------------------------------

assert_type(x.shape, tuple[int, ...])
assert_type(x.dtype, np.dtype[Any])
assert_type(tl.float32, np.dtype[Any])
assert_type(x.ndim, int)
assert_type(x.device, tl.Device)
assert_type(x.requires_grad, bool)
assert_type(x.is_leaf, bool)
assert_type(x.T, Tensor)
assert_type(x.mT, Tensor)
assert_type(x.data, Tensor)
assert_type(x.grad, Tensor | None)
assert_type(x.dim(), int)
assert_type(x.numel(), int)
assert_type(x.numpy(), np.ndarray[Any, Any])
assert_type(len(x), int)
assert_type(x.sum().item(), int | float | bool)
assert_type(float(x.sum()), float)
assert_type(int(x.sum()), int)
assert_type(bool(mask.all()), bool)
assert_type(list(x), list[Tensor])
assert_type(iter(x), Iterator[Tensor])
x.grad.zero_()  # wrong
x.no_such_attribute  # wrong
x.shape = (4,)  # wrong

# ---- operators ------------------------------------------------------------------------------

assert_type(x + x, Tensor)
assert_type(x + 1, Tensor)
assert_type(1 - x, Tensor)
assert_type(2.0 * x, Tensor)
assert_type(x / np.float32(2.0), Tensor)
assert_type(1 / x, Tensor)
assert_type(x * np.ones(2, np.float32), Tensor)
assert_type(x // 2, Tensor)
assert_type(x % 2, Tensor)
assert_type(x**2, Tensor)
assert_type(2**x, Tensor)
assert_type(x @ x, Tensor)
assert_type(-x, Tensor)
assert_type(abs(x), Tensor)
assert_type(x < 1, Tensor)
assert_type(x >= x, Tensor)
assert_type(x == x, Tensor)
assert_type(x != 0, Tensor)
assert_type(~mask, Tensor)
assert_type(mask & mask, Tensor)
assert_type(mask | (x < 0), Tensor)
assert_type(i << 1, Tensor)
x + "1"  # wrong
"1" - x  # wrong
x @ 2  # wrong
x < "1"  # wrong

# ---- indexing -------------------------------------------------------------------------------

assert_type(x[0], Tensor)
assert_type(x[0, 1], Tensor)
assert_type(x[:, None, ...], Tensor)
assert_type(x[mask], Tensor)
assert_type(x[i], Tensor)
assert_type(x[[0, 1]], Tensor)
assert_type(x[:, i], Tensor)
assert_type(x[np.array([0, 1])], Tensor)
x[0] = 1.0
x[mask] = tl.zeros(3)
x[:, 0] += 1
x["first"]  # wrong
x[1.5]  # wrong

# ---- element by element ---------------------------------------------------------------------

assert_type(tl.exp(x), Tensor)
assert_type(x.exp(), Tensor)
assert_type(tl.add(x, 1, alpha=2), Tensor)
assert_type(x.add(x, alpha=0.5), Tensor)
assert_type(tl.div(x, 2, rounding_mode="floor"), Tensor)
assert_type(tl.pow(2, x), Tensor)
assert_type(tl.maximum(x, x), Tensor)
assert_type(tl.clamp(x, min=0.0), Tensor)
assert_type(x.clamp(0, 1), Tensor)
assert_type(tl.clip(x, max=x), Tensor)
assert_type(tl.where(mask, x, 0.0), Tensor)
assert_type(tl.where(mask), tuple[Tensor, ...])
assert_type(tl.round(x, decimals=2), Tensor)
assert_type(tl.sigmoid(input=x), Tensor)
assert_type(tl.multiply(input=x, other=2), Tensor)
assert_type(tl.isnan(x), Tensor)
assert_type(tl.logical_and(mask, mask), Tensor)
assert_type(x.double(), Tensor)
assert_type(x.to(tl.float64), Tensor)
assert_type(x.to("cpu", dtype="float64"), Tensor)
assert_type(x.clone(), Tensor)
assert_type(x.detach(), Tensor)
tl.exp(x, out=x)  # wrong
tl.exp([1.0])  # wrong
tl.exp()  # wrong
x.exp(1)  # wrong
tl.div(x, 2, rounding_mode="up")  # wrong
tl.clamp(x, minimum=0.0)  # wrong
tl.sin(y=x)  # wrong

# ---- in place -------------------------------------------------------------------------------

assert_type(x.exp_(), Tensor)
assert_type(x.add_(1, alpha=2), Tensor)
assert_type(x.mul_(x), Tensor)
assert_type(x.zero_(), Tensor)
assert_type(x.fill_(1.0), Tensor)
assert_type(x.copy_(x), Tensor)
assert_type(x.normal_(mean=0.0, std=0.02), Tensor)
assert_type(x.masked_fill_(mask, 0.0), Tensor)
assert_type(x.requires_grad_(), Tensor)
x += 1
x *= x
assert_type(x, Tensor)
x.add_("1")  # wrong
x.exp_(out=x)  # wrong

# ---- reductions -----------------------------------------------------------------------------

assert_type(tl.sum(x), Tensor)
assert_type(x.sum(dim=0), Tensor)
assert_type(x.sum((0, 1), keepdim=True), Tensor)
assert_type(x.sum(dim=0, dtype=tl.float64), Tensor)
assert_type(x.mean(-1), Tensor)
assert_type(x.var(0, correction=0), Tensor)
assert_type(tl.std(x, dim=1), Tensor)
assert_type(x.norm(), Tensor)
assert_type(tl.logsumexp(x, dim=1), Tensor)
assert_type(tl.max(x), Tensor)
assert_type(tl.max(x, dim=0), MaxMin[Tensor])
assert_type(tl.max(x, 0, True), MaxMin[Tensor])
assert_type(tl.max(x, dim=0).values, Tensor)
assert_type(x.max(1).indices, Tensor)
assert_type(x.min(dim=0)[0], Tensor)
assert_type(tl.min(x, x), Tensor)
assert_type(tl.max(x, other=x), Tensor)
assert_type(x.amax(dim=(0, 1)), Tensor)
assert_type(x.argmax(), Tensor)
assert_type(x.all(), Tensor)
assert_type(x.cumsum(0), Tensor)
x.sum(dims=0)  # wrong
x.sum("rows")  # wrong
x.max(0).value  # wrong
tl.max(x, keepdims=True)  # wrong
tl.softmax(x)  # wrong

# ---- shapes ---------------------------------------------------------------------------------

assert_type(x.reshape(4), Tensor)
assert_type(x.reshape(2, 2), Tensor)
assert_type(x.reshape((2, -1)), Tensor)
assert_type(x.view(-1), Tensor)
assert_type(x.view(x.shape), Tensor)
assert_type(tl.reshape(x, (4,)), Tensor)
assert_type(x.permute(1, 0), Tensor)
assert_type(tl.permute(x, (1, 0)), Tensor)
assert_type(x.transpose(0, 1), Tensor)
assert_type(x.unsqueeze(0).squeeze(), Tensor)
assert_type(x.flatten(), Tensor)
assert_type(x.expand(3, 2, 2), Tensor)
assert_type(x.repeat(2, 1), Tensor)
assert_type(tl.cat([x, x], dim=0), Tensor)
assert_type(tl.stack((x, x)), Tensor)
assert_type(tl.split(x, 1), tuple[Tensor, ...])
assert_type(x.chunk(2, dim=1), tuple[Tensor, ...])
assert_type(x.unbind(), tuple[Tensor, ...])
assert_type(tl.broadcast_tensors(x, x), tuple[Tensor, ...])
assert_type(x.flip(0), Tensor)
x.reshape("4")  # wrong
x.permute(dim=(1, 0))  # wrong
tl.cat(x, x)  # wrong
tl.cat([x, 1.0])  # wrong
tl.stack([x], axes=0)  # wrong
x.transpose(0)  # wrong

# ---- gather, sort, linear algebra -----------------------------------------------------------

assert_type(x.gather(1, i), Tensor)
assert_type(tl.scatter(x, 1, i, src=x), Tensor)
assert_type(tl.scatter(x, 1, i, value=1.0), Tensor)
assert_type(x.index_select(0, tl.tensor([0])), Tensor)
assert_type(x.masked_fill(mask, float("-inf")), Tensor)
assert_type(x.masked_select(mask), Tensor)
assert_type(x.nonzero(), Tensor)
assert_type(tl.nonzero(x, as_tuple=True), tuple[Tensor, ...])
assert_type(x.sort(), Sorted[Tensor])
assert_type(tl.sort(x, descending=True).values, Tensor)
assert_type(x.topk(2).indices, Tensor)
assert_type(x.argsort(), Tensor)
assert_type(tl.searchsorted(tl.arange(4), x), Tensor)
assert_type(tl.matmul(x, x), Tensor)
assert_type(x.mm(x), Tensor)
assert_type(tl.einsum("ij,jk->ik", x, x), Tensor)
assert_type(tl.tril(x, diagonal=-1), Tensor)
assert_type(x.diagonal(), Tensor)
x.gather(1)  # wrong
x.topk(k="2")  # wrong
tl.mm(x, mat1=x)  # wrong
tl.einsum(1, x)  # wrong

# ---- gradients ------------------------------------------------------------------------------


def loss_of(w: Tensor, scale: float = 1.0) -> Tensor:
    return (w * w).sum() * scale


def loss_of_dict(params: dict[str, Tensor], y: Tensor) -> Tensor:
    return (params["w"] * y).sum()


assert_type(x.backward(), None)
assert_type(tl.autograd.grad(x.sum(), [x]), tuple[Tensor, ...])
assert_type(tl.autograd.grad(x.sum(), x, allow_unused=True), tuple[Tensor | None, ...])
assert_type(tl.func.grad(loss_of)(x, 2.0), Tensor)
assert_type(tl.func.value_and_grad(loss_of)(x), tuple[Tensor, Tensor])
assert_type(tl.func.grad(loss_of_dict)({"w": x}, x), dict[str, Tensor])
assert_type(tl.func.value_and_grad(loss_of_dict)({"w": x}, x), tuple[Tensor, dict[str, Tensor]])
assert_type(tl.func.grad(loss_of_dict, argnums=(0, 1))({"w": x}, x), tuple[Any, ...])
assert_type(tl.func.hvp(loss_of, (x,), (x,)), tuple[Tensor, Tensor])
assert_type(tl.func.hessian(loss_of)(x), Tensor)
assert_type(tl.func.jacobian(tl.exp)(x), Tensor)
assert_type(tl.func.jvp(loss_of, (x,), (x,)), tuple[Tensor, Tensor])
assert_type(tl.func.vjp(loss_of, x)[0], Tensor)
assert_type(tl.func.vjp(loss_of, x)[1](x), tuple[Tensor, ...])
assert_type(tl.utils.checkpoint.checkpoint(loss_of, x), Tensor)
assert_type(tl.checkpoint(loss_of, x, scale=2.0), Tensor)
assert_type(tl.is_grad_enabled(), bool)
tl.autograd.grad(x.sum(), [x], retain=True)  # wrong
tl.func.grad(loss_of)(x, "2")  # wrong
tl.func.grad(loss_of_dict)(x, x)  # wrong
tl.checkpoint(loss_of, x, scales=2.0)  # wrong
x.backward(keep_graph=True)  # wrong

with tl.no_grad():
    x.zero_()


@tl.no_grad()
def count(w: Tensor) -> int:
    return w.numel()


assert_type(count(x), int)
count(1)  # wrong


@tl.op(lambda g, b: g * b, lambda g, a: g * a)
def product(xp: Any, a: Any, b: Any) -> Any:
    return a * b


@tl.op(lambda g: g[0] + g[1], multi_output=True)
def twice(xp: Any, a: Any) -> Any:
    return a, a


assert_type(product(x, x), Tensor)
assert_type(product(x, b=x), Tensor)
assert_type(twice(x), tuple[Tensor, ...])
product(x)  # wrong
product(x, x, x)  # wrong
product(x, c=x)  # wrong

# ---- modules --------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(2, width)
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(width, 2))
        self.scale = nn.Parameter(tl.ones(1))

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> tuple[Tensor, int]:
        y = assert_type(self.head(assert_type(self.hidden(x), Tensor)), Tensor)
        return assert_type(y * self.scale, Tensor), y.shape[0]


net = Net(width=4)
assert_type(net(x), tuple[Tensor, int])
assert_type(net(x, mask=None)[0], Tensor)
assert_type(net.train(), Net)
assert_type(net.to("cpu"), Net)
assert_type(net.hidden.weight, nn.Parameter)
assert_type(net.hidden.weight.grad, Tensor | None)
assert_type(net.scale + 1, Tensor)
assert_type(list(net.parameters()), list[nn.Parameter])
assert_type(net.state_dict(), dict[str, Tensor])
assert_type(nn.Linear(2, 3)(x), Tensor)
assert_type(nn.Embedding(10, 4)(i), Tensor)
assert_type(nn.LayerNorm(2)(x), Tensor)
assert_type(nn.Dropout(0.1)(x), Tensor)
assert_type(nn.GELU(approximate="tanh")(x), Tensor)
assert_type(nn.CrossEntropyLoss()(x, i[0]), Tensor)
assert_type(nn.Sequential(nn.Linear(2, 2), nn.GELU())(x), Tensor)
net()  # wrong
net(1.0)  # wrong
net(x, masks=None)  # wrong
Net(widths=4)  # wrong
nn.Linear(2)  # wrong
nn.Linear(2, 3)("x")  # wrong
nn.GELU(approximate="exact")  # wrong

# ---- functional, optim, serialization -------------------------------------------------------

assert_type(F.gelu(x), Tensor)
assert_type(F.relu(x), Tensor)
assert_type(F.softmax(x, dim=-1), Tensor)
assert_type(F.linear(x, x, None), Tensor)
assert_type(F.cross_entropy(x, i[0], label_smoothing=0.1), Tensor)
assert_type(F.one_hot(i, num_classes=2), Tensor)
assert_type(F.scaled_dot_product_attention(x, x, x, is_causal=True), Tensor)
assert_type(F.dropout(x, 0.1, training=True), Tensor)
F.gelu(x, approximation="tanh")  # wrong
F.cross_entropy(x)  # wrong
F.softmax(x, dim="last")  # wrong


def closure() -> Tensor:
    return net(x)[0].sum()


optimizer = optim.AdamW(net.parameters(), lr=1e-3, betas=(0.9, 0.95))
assert_type(optimizer, optim.AdamW)
assert_type(optimizer.step(), None)
assert_type(optimizer.step(closure), Tensor)
assert_type(optimizer.zero_grad(), None)
assert_type(lr_scheduler.CosineAnnealingLR(optimizer, T_max=10).step(), None)
assert_type(tl.load("model.safetensors"), dict[str, Tensor])
assert_type(tl.save(net.state_dict(), "model.safetensors"), None)
optim.SGD(net.parameters(), learning_rate=0.1)  # wrong
optim.AdamW(1.0)  # wrong
tl.save(net, "model.safetensors")  # wrong


def apply(f: Callable[[Tensor], Tensor], w: Tensor) -> Tensor:
    return f(w)


assert_type(apply(tl.exp, x), Tensor)
assert_type(apply(tl.relu, x), Tensor)
assert_type(apply(nn.ReLU(), x), Tensor)
