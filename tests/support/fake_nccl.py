"""A stand-in for CuPy with NCCL: streams, events and communicators between threads that move bytes of host memory.

The names, the arguments and the types are those of CuPy 14.2. A stream is a thread that runs its work in order, so work
on it is done later than the call that starts it, as on a GPU.
"""

import ctypes
import itertools
import queue
import threading
import time
import types

UNIQUE_ID_BYTES = 128
DELAY = 0.0005  # seconds that a transfer takes at least


class NcclError(RuntimeError):
    """The error of the stand-in, of the class of the real one."""


class Stream:
    """A CUDA stream. log: the names of the calls of a GPU, in order."""

    handles = itertools.count(1)
    by_handle: dict[int, "Stream"] = {}  # noqa: RUF012

    def __init__(self, log, non_blocking=False):
        self.log, self.ptr, self.work = log, next(self.handles), queue.SimpleQueue()
        self.by_handle[self.ptr] = self
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            self.work.get()()

    def __enter__(self):
        self.log.append("enter stream")

    def __exit__(self, *exc):
        self.log.append("exit stream")

    def wait_event(self, event):
        self.log.append("wait for the current stream")
        self.work.put(event.happened.wait)


class Event:
    """A CUDA event."""

    def __init__(self, log, block=False, disable_timing=False, interprocess=False):
        self.log, self.happened = log, threading.Event()

    def record(self, stream):
        self.log.append("record")
        stream.work.put(self.happened.set)

    @property
    def done(self):
        return self.happened.is_set()


class Network:
    """The connections of the communicators of one identifier."""

    def __init__(self):
        self.lock, self.links, self.ranks = threading.Lock(), {}, {}

    def link(self, source, target):
        with self.lock:
            return self.links.setdefault((source, target), queue.SimpleQueue())


def make_cupy(index, count, networks, log):
    """Return the stand-in of one process. index, count: its current GPU, and the number of GPUs.

    networks: a dict that all processes share. log: a list that gets the calls of this process.
    """
    group = []  # the calls between groupStart and groupEnd
    depth = [0]

    class NcclCommunicator:
        def __init__(self, ndev, commId, rank, config=None):
            assert isinstance(commId, bytes)
            assert len(commId) == UNIQUE_ID_BYTES
            self.size, self.rank, self.failed = ndev, rank, False
            self.network = networks.setdefault(commId, Network())
            self.network.ranks[rank] = index
            while len(self.network.ranks) < ndev:  # as the library, it waits for the other ranks
                time.sleep(0.001)
            if len(set(self.network.ranks.values())) < ndev:
                raise NcclError("NCCL_ERROR_INVALID_USAGE: invalid usage: Duplicate GPU detected")

        def _put(self, what, stream, run):
            assert isinstance(stream, int)
            log.append(what)
            if depth[0]:
                group.append((stream, run))
            else:
                Stream.by_handle[stream].work.put(lambda: (time.sleep(DELAY), run()))

        def send(self, sendbuf, count, datatype, peer, stream):
            assert datatype == module.NCCL_UINT8
            link = self.network.link(self.rank, peer)
            self._put("send", stream, lambda: link.put(ctypes.string_at(sendbuf, count)))

        def recv(self, recvbuf, count, datatype, peer, stream):
            assert datatype == module.NCCL_UINT8
            link = self.network.link(peer, self.rank)

            def run():
                data = link.get()
                assert len(data) == count
                ctypes.memmove(recvbuf, data, count)

            self._put("recv", stream, run)

        def allGather(self, sendbuf, recvbuf, count, datatype, stream):
            module.groupStart()
            for peer in range(self.size):
                self.send(sendbuf, count, datatype, peer, stream)
            for peer in range(self.size):
                self.recv(recvbuf + peer * count, count, datatype, peer, stream)
            module.groupEnd()

        def broadcast(self, sendbuff, recvbuff, count, datatype, root, stream):
            module.groupStart()
            for peer in range(self.size):
                if peer != root and self.rank == root:
                    self.send(sendbuff, count, datatype, peer, stream)
            if self.rank != root:
                self.recv(recvbuff, count, datatype, root, stream)
            module.groupEnd()

        def check_async_error(self):
            if self.failed:
                raise NcclError("NCCL_ERROR_SYSTEM_ERROR: unhandled system error")

        def destroy(self):
            log.append("destroy")

        def abort(self):
            log.append("abort")

    def start_group():
        depth[0] += 1

    def end_group():
        depth[0] -= 1
        if not depth[0] and group:
            runs = [run for _, run in group]
            assert len({stream for stream, _ in group}) == 1
            Stream.by_handle[group[0][0]].work.put(lambda: (time.sleep(DELAY), [run() for run in runs]))
            group.clear()

    module = types.SimpleNamespace(
        NCCL_UINT8=1, NcclCommunicator=NcclCommunicator, NcclError=NcclError, groupStart=start_group,
        groupEnd=end_group, get_unique_id=lambda: len(networks).to_bytes(UNIQUE_ID_BYTES, "big"),
        get_version=lambda: 23203,
    )  # fmt: skip

    class Device:
        def __init__(self, number=None):
            self.id = index if number is None else number
            self.pci_bus_id = f"0000:{self.id:02X}:00.0"

        def __enter__(self):
            assert self.id == index % count

        def __exit__(self, *exc):
            pass

    current = Stream(log)
    cuda = types.SimpleNamespace(
        nccl=module, Device=Device, Stream=lambda non_blocking=False: Stream(log, non_blocking),
        Event=lambda **options: Event(log, **options), get_current_stream=lambda: current,
    )  # fmt: skip
    return types.SimpleNamespace(cuda=cuda)
