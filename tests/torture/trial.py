"""A trial: a run that is killed some times at random moments, and then compared with one that nothing disturbed."""

import random
import shutil
import signal
import time
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from gpt import checkpoint
from gpt.runs import LATEST
from tests.gpt.small_runs import content, measured
from tests.torture.launch import LAUNCHERS, LONGEST, RANKS, Attempt
from tests.torture.power_cut import NOTHING, Disk, cut_power
from tests.torture.recorder import LOG
from tests.torture.worker import RUN, Order

MOST_KILLS = 4  # in one trial
KINDS = ("kill", "power cut", "power cut", "power cut", "SIGTERM", "Ctrl-C", "SIGTERM and kill")
AT_EVENTS = ("kill", "power cut")  # the kinds that may come at a numbered event
GRACE = 0.05  # Seconds between SIGTERM and a kill, at most.
SOON = 20.0  # Seconds in which all processes end after a kill of one, on a machine that does other work, too.
# The exit statuses after a signal: negative for a program that it ended, 128 + the signal for one whose child it ended,
# and 3 for a worker that has saved.
STOPPED = {sign for n in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT) for sign in (-n, 128 + n)} | {3}
# mpiexec of MPICH gives the signal itself, and 1 if a rank tells that another one has ended. It combines the statuses
# of the ranks with "or", so 11 is a SIGINT and a SIGKILL.
BITS_OF_MPIEXEC = [0, 1, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, 130, 137, 143]
STOPPED_BY = {"mpiexec": STOPPED | {a | b | c for a, b, c in product(BITS_OF_MPIEXEC, repeat=3)} - {0}}


@dataclass(frozen=True)
class Reference:
    """A run that nothing disturbed: its folder, the number of its events, and the seconds that it took.

    calls: about how many calls of its group each of several ranks made.
    """

    folder: Path
    events: int
    seconds: float
    calls: int = 0


@dataclass
class Result:
    """What a trial found. kills: (kind, moment, what a power cut lost). failures: in words."""

    kills: list[tuple[str, str, str]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    longest: float = 0.0  # Seconds between a kill and the end of all processes.


def run_trial(
    place: Path, text: Path, variant: str, reference: Reference, seed: int, launcher: str = "forked",
    ignored: str = "", by_time: bool = True,
) -> Result:  # fmt: skip
    """Kill a run at up to MOST_KILLS random moments, let it finish, and compare it with the reference.

    place: a new folder for the trial, which is removed unless something failed. ignored: see `Recorder`.
    by_time: False kills at numbered events alone, so that the same seed does nearly the same in each run.
    """
    rng, result, root = random.Random(seed), Result(), place / "root"
    root.mkdir(parents=True)
    for number in range(MOST_KILLS + 1):
        kind = rng.choice(KINDS if by_time else AT_EVENTS) if number < MOST_KILLS else ""
        by_event = kind in AT_EVENTS and (rng.random() < 0.7 or not by_time)
        # A resumed run has fewer events, so early ones are likelier.
        part = rng.random() ** 2 if by_event else 0.0
        rank = rng.randrange(RANKS) if by_event and launcher == "ranks" else 0
        kill_at = by_event + int((reference.events if rank == 0 else reference.calls) * part)
        journal = place / f"journal-{number}"
        order = Order(str(root), str(text), variant, str(journal), kill_at, ignored, rank)
        attempt = LAUNCHERS[launcher](order, place / "output.txt")
        moment = f"event {kill_at} of rank {rank}" if by_event else "a moment"
        began = time.monotonic()
        if kind and not by_event:
            attempt.wait(rng.uniform(0, reference.seconds))
            began = time.monotonic()
            moment += f", {who}" if (who := send(kind, attempt, rng)) else ""
        what = f"{kind}, {moment}" if kind else "no signal"
        limit = SOON if kind in AT_EVENTS and not by_event else LONGEST
        status = attempt.wait(limit)
        if kind in AT_EVENTS and not by_event:
            result.longest = max(result.longest, time.monotonic() - began)
        if status is None:
            result.failures.append(f"attempt {number}: it did not end within {limit:g} s after {what}")
            attempt.send(signal.SIGKILL, rng)
            attempt.wait(LONGEST)
            attempt.end(0)
            break
        if left := attempt.end(SOON):
            result.failures.append(f"attempt {number}: {len(left)} processes stayed after {what}")
            break
        if status == 0:
            break
        if not kind or status not in STOPPED_BY.get(launcher, STOPPED):
            result.failures.append(f"attempt {number}: exit status {status} after {what}")
            break
        lost = end_of_attempt(kind, journal, root, rng, result)
        result.kills.append((kind, moment, lost))
        if result.failures:
            break
        shutil.rmtree(journal, ignore_errors=True)
    if not result.failures:
        result.failures += differences(root / RUN, reference.folder)
    if not result.failures:
        shutil.rmtree(place)
    return result


def send(kind: str, attempt: Attempt, rng: random.Random) -> str:
    """Send an attempt the signals of a kind. Return which of its processes got them."""
    first = {"SIGTERM": signal.SIGTERM, "SIGTERM and kill": signal.SIGTERM, "Ctrl-C": signal.SIGINT}
    who = attempt.send(first.get(kind, signal.SIGKILL), rng)
    if kind == "SIGTERM and kill":
        attempt.wait(rng.uniform(0, GRACE))
        who += f" and {attempt.send(signal.SIGKILL, rng)}" if who else ""
    return who


def end_of_attempt(kind: str, journal: Path, root: Path, rng: random.Random, result: Result) -> str:
    """Make the folder that the kind of kill leaves, and check its checkpoint. Return what a power cut lost."""
    if not (journal / LOG).exists():
        return NOTHING
    disk = Disk(journal)
    lost = cut_power(disk, root, rng) if kind == "power cut" else NOTHING
    latest, promised = root / RUN / LATEST, max(disk.saved, default=0)
    step = 0
    if latest.exists():
        try:
            step = checkpoint.load(latest, training=True).step
        except checkpoint.CheckpointError as error:
            result.failures.append(f"{kind}: the checkpoint does not load: {error} (lost: {lost})")
            return lost
    if step < promised:
        found = f"the checkpoint is of step {step}" if step else "there is no checkpoint"
        result.failures.append(f"{kind}: {found}, that of step {promised} was written (lost: {lost})")
    return lost


def differences(folder: Path, reference: Path) -> list[str]:
    """Return what differs between two finished runs, except for times and paths."""
    names = {path.name for path in reference.iterdir()}
    own = {path.name for path in folder.iterdir() if not path.name.startswith("earlier-")}
    found = [f"files: {sorted(own ^ names)} are in one run alone"] if own != names else []
    for name in sorted(own & names):
        if name.endswith(".safetensors"):
            (header, arrays), (expected, others) = content(folder / name), content(reference / name)
            found += [f"{name}: {key}" for key in expected if header.get(key) != expected[key]]
            found += [f"{name}: {key}" for key in others if key not in arrays or (arrays[key] != others[key]).any()]
        elif name == "layers.jsonl" and (folder / name).read_bytes() != (reference / name).read_bytes():
            found.append(name)
    if measured(folder) != measured(reference):
        found.append("metrics.jsonl")
    return found
