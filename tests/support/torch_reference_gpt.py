"""An independent GPT in PyTorch, written from the equations, for comparison with gpt.model and gpt.train.

It uses no layer of torch.nn. Softmax, layer norm, GELU and cross-entropy are written out, gradients come from PyTorch's
autograd, and AdamW follows Loshchilov and Hutter 2019.
"""

import math

import torch

torch.set_num_threads(1)  # In one process, the idle threads of both libraries would spin on the same cores.


class TorchGPT:
    """A GPT with `weights`, a dict of arrays with the names of the state_dict of gpt.model.GPT."""

    def __init__(self, config, weights):
        self.config = config
        self.p = {name: torch.tensor(value, requires_grad=True) for name, value in weights.items()}

    def norm(self, x, name):
        centred = x - x.mean(-1, keepdim=True)
        y = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * self.p[f"{name}.weight"]
        return y + self.p[f"{name}.bias"] if self.config.bias else y

    def affine(self, x, name):
        y = torch.einsum("btc,dc->btd", x, self.p[f"{name}.weight"])
        return y + self.p[f"{name}.bias"] if self.config.bias else y

    def attention(self, x, name):
        T, width = x.shape[1], self.config.n_embd // self.config.n_head
        future = torch.ones(T, T).triu(1).bool()
        qkv = self.affine(x, f"{name}.c_attn")
        heads = []
        for h in range(self.config.n_head):
            q, k, v = (qkv[..., part * self.config.n_embd + h * width :][..., :width] for part in range(3))
            scores = torch.einsum("btd,bsd->bts", q, k) / math.sqrt(width)
            weights = scores.masked_fill(future, -math.inf).exp()
            heads.append(torch.einsum("bts,bsd->btd", weights / weights.sum(-1, keepdim=True), v))
        return self.affine(torch.cat(heads, -1), f"{name}.c_proj")

    def gelu(self, x):
        if self.config.gelu == "erf":
            return x * (1 + torch.erf(x / math.sqrt(2))) / 2
        return x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2

    def positions(self, T):
        if self.config.position == "learned":
            return self.p["wpe.weight"][:T]
        table = [
            [
                math.sin(t / 10000 ** (c / self.config.n_embd)) if c % 2 == 0
                else math.cos(t / 10000 ** ((c - 1) / self.config.n_embd))
                for c in range(self.config.n_embd)
            ]
            for t in range(T)
        ]  # fmt: skip
        return torch.tensor(table, dtype=self.p["wte.weight"].dtype)

    def logits(self, idx):
        x = self.p["wte.weight"][torch.as_tensor(idx)]
        if self.config.position == "sinusoidal":
            x = x * math.sqrt(self.config.n_embd)
        x = x + self.positions(x.shape[1])
        for layer in range(self.config.n_layer):
            x = x + self.attention(self.norm(x, f"h.{layer}.ln_1"), f"h.{layer}.attn")
            hidden = self.gelu(self.affine(self.norm(x, f"h.{layer}.ln_2"), f"h.{layer}.mlp.c_fc"))
            x = x + self.affine(hidden, f"h.{layer}.mlp.c_proj")
        return torch.einsum("btc,vc->btv", self.norm(x, "ln_f"), self.p["wte.weight"])

    def loss(self, idx, targets):
        logits = self.logits(idx)
        chosen = logits.gather(-1, torch.as_tensor(targets)[..., None])[..., 0]
        return (logits.logsumexp(-1) - chosen).mean()

    def gradients(self, idx, targets):
        """Return the gradient of the loss for each parameter, by name."""
        return dict(zip(self.p, torch.autograd.grad(self.loss(idx, targets), list(self.p.values()))))


class TorchTrainer:
    """An optimizer of a TorchGPT: clipped AdamW that decays matrices, with warm-up and cosine decay."""

    def __init__(self, model, optim, steps):
        self.model, self.optim, self.steps, self.t = model, optim, steps, 0
        self.m = {name: torch.zeros_like(p) for name, p in model.p.items()}
        self.v = {name: torch.zeros_like(p) for name, p in model.p.items()}

    def lr(self):
        o, t = self.optim, self.t
        if t < o.warmup_steps:
            return o.lr * (t + 1) / (o.warmup_steps + 1)
        done = (t - o.warmup_steps) / (self.steps - o.warmup_steps)
        return o.min_lr + (o.lr - o.min_lr) * (1 + math.cos(math.pi * done)) / 2

    def step(self, idx, targets):
        """Take one step; return the loss before it."""
        o, lr = self.optim, self.lr()
        loss = self.model.loss(idx, targets)
        names = list(self.model.p)
        grads = torch.autograd.grad(loss, [self.model.p[name] for name in names])
        norm = torch.sqrt(sum(g.square().sum() for g in grads))
        scale = torch.clamp(o.grad_clip / (norm + 1e-6), max=1.0)
        self.t += 1
        with torch.no_grad():
            for name, g in zip(names, grads):
                p, g = self.model.p[name], g * scale
                self.m[name] = o.beta1 * self.m[name] + (1 - o.beta1) * g
                self.v[name] = o.beta2 * self.v[name] + (1 - o.beta2) * g * g
                m = self.m[name] / (1 - o.beta1**self.t)
                v = self.v[name] / (1 - o.beta2**self.t)
                decay = o.weight_decay if p.ndim >= 2 else 0.0
                p -= lr * (m / (v.sqrt() + o.eps) + decay * p)
        return loss.item()
