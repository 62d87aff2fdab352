"""Train a GPT on one rank or on several, in the ways that bench_distributed.py compares.

Each rank is a process of its own, which the benchmark asks for blocks of steps over a connection. A rank that waits for
the next block sleeps, so that it takes no core from the other sides.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import NamedTuple

import numpy as np
from link_engine import LinkEngine
from step_sides import OPTIM, SHAPES, Shape, draw_batch

import tensorlite as tl
import tensorlite.distributed as dist
from gpt.model import GPT
from gpt.model.scaling import Link
from gpt.train import configure_optimizer

KEY = b"bench_distributed"


class Order(NamedTuple):
    """A block of steps. link: between the ranks; None for that of the MPI library. together: whether they average.

    compiled: whether steps are replayed, in which the gradients are averaged after the backward pass.
    """

    steps: int
    link: Link | None = None
    together: bool = True
    compiled: bool = False


class Trainer:
    """A rank that trains. Its batches are its parts of those that all ranks draw."""

    def __init__(self, shape: Shape, group: dist.Group) -> None:
        self.shape, self.group = shape, group
        self.model = GPT(shape.config())
        self.model.load_state_dict({name: tl.from_numpy(value) for name, value in shape.weights().items()})
        self.parameters = list(self.model.parameters())
        self.optimizer = configure_optimizer(self.model, OPTIM)
        self.parallel = dist.DataParallel(self.model, group)
        self.compiled = self.make_compiled()
        self.rng = np.random.default_rng(0)
        self.engine = None if group.communicator is None else group.communicator.engine

    def part(self, batch: np.ndarray) -> tl.Tensor:
        """Return this rank's rows of a batch, which the ranks share equally."""
        rows = len(batch) // self.group.size
        return tl.from_numpy(batch[self.group.rank * rows : (self.group.rank + 1) * rows])

    def make_compiled(self) -> Callable[[tl.Tensor, tl.Tensor], tl.Tensor]:
        """Return a function that replays a step, in which the gradients are averaged after the backward pass."""
        model, parameters, optimizer, parallel = self.model, self.parameters, self.optimizer, self.parallel

        @tl.compile
        def step(x: tl.Tensor, y: tl.Tensor) -> tl.Tensor:
            _, loss = model(x, y)
            loss.backward()
            parallel.average_gradients()
            tl.nn.utils.clip_grad_norm_(parameters, OPTIM.grad_clip)
            optimizer.step()
            optimizer.zero_grad()
            return loss

        return step

    def step_compiled(self) -> tuple[float, ...]:
        """Take a step as `step` does, with replays. All of it counts as one part."""
        x, y = (self.part(each) for each in draw_batch(self.rng, self.shape))
        start = time.perf_counter()
        value = self.compiled(x, y).item()
        return (value, 0, time.perf_counter() - start, 0.0, 0.0)

    def step(self) -> tuple[float, ...]:
        """Take a step. Return the loss of this rank, the bytes it sent, and the seconds of its three parts.

        They are the forward pass, the backward pass, and the update. Only a simulated link counts bytes.
        """
        sent = self.sent
        x, y = (self.part(each) for each in draw_batch(self.rng, self.shape))
        times = [time.perf_counter()]
        _, loss = self.parallel(x, y)
        times.append(time.perf_counter())
        loss.backward()
        times.append(time.perf_counter())
        tl.nn.utils.clip_grad_norm_(self.parameters, OPTIM.grad_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        value = loss.item()
        times.append(time.perf_counter())
        return (value, self.sent - sent, *np.diff(times))

    @property
    def sent(self) -> int:
        """Return the bytes that this rank has sent on a simulated link."""
        engine = None if self.group.communicator is None else self.group.communicator.engine
        return engine.sent if isinstance(engine, LinkEngine) else 0

    def run(self, order: Order) -> list[tuple[float, ...]]:
        """Return the results of a block of steps."""
        communicator = self.group.communicator
        if communicator is not None and self.engine is not None:
            communicator.engine = self.engine
            self.group.barrier()
            if order.link is not None:
                communicator.engine = LinkEngine(self.engine, order.link)
        if order.together and not order.compiled:
            return [self.step() for _ in range(order.steps)]
        with self.parallel.no_sync():
            return [(self.step_compiled if order.compiled else self.step)() for _ in range(order.steps)]


class Block(NamedTuple):
    """What the ranks have measured in a block. seconds: of each step, of its slowest rank. losses: means over ranks.

    sent: the different numbers of bytes that a rank sent in a step. passes: seconds of forward, backward pass and
    update, (steps, 3), of the slowest rank.
    """

    seconds: list[float]
    losses: list[float]
    sent: set[int]
    passes: np.ndarray


class Ranks:
    """The processes of one side. command: what starts them, such as mpiexec; empty for one process."""

    def __init__(self, command: Sequence[str], size: int, shape: str) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with Listener(authkey=KEY) as listener:
            program = [sys.executable, str(Path(__file__)), str(listener.address), shape]
            self.process = subprocess.Popen([*command, *program], env=environment)
            found: dict[int, Connection] = {}
            for _ in range(size):
                pipe = listener.accept()
                found[pipe.recv()] = pipe
        self.pipes = [found[rank] for rank in sorted(found)]

    def run(self, order: Order) -> Block:
        """Return the results of a block."""
        for pipe in self.pipes:
            pipe.send(order)
        done = np.array([pipe.recv() for pipe in self.pipes])
        losses, sent, passes = done[..., 0], done[..., 1].astype(int), done[..., 2:]
        slowest = passes.sum(axis=2).argmax(axis=0)
        slow = passes[slowest, np.arange(order.steps)]
        return Block(slow.sum(axis=1).tolist(), losses.mean(axis=0).tolist(), set(sent.ravel().tolist()), slow)

    def stop(self) -> None:
        """End the processes."""
        for pipe in self.pipes:
            pipe.send(None)
        self.process.wait()


def main(address: str, shape: str) -> None:
    """Run as one rank: take the ordered blocks, until None comes."""
    group = dist.init()
    trainer = Trainer(SHAPES[shape], group)
    with Client(address, authkey=KEY) as pipe:
        pipe.send(group.rank)
        while order := pipe.recv():
            pipe.send(trainer.run(order))


if __name__ == "__main__":
    main(*sys.argv[1:])
