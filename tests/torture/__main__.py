"""Kill many runs, and print what was found: `python -m tests.torture --kills 1000`."""

import argparse
import collections
import contextlib
import io
import itertools
import json
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from gpt import train
from tests.torture.launch import LAUNCHERS, LONGEST
from tests.torture.power_cut import NOTHING, Disk
from tests.torture.ranks import calls_of
from tests.torture.trial import Reference, Result, run_trial
from tests.torture.worker import RUN, VARIANTS, Order, make_config


def main() -> int:
    """Run the trials and return the exit status: 0 if nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, help="how many kills to make at least")
    parser.add_argument("--seed", type=int, default=0, help="of the first trial; each trial has the next one")
    parser.add_argument("--variant", choices=VARIANTS, action="append", help="which runs to kill; all if not given")
    parser.add_argument("--launcher", choices=LAUNCHERS, action="append", help="how to start a run; forked and ranks")
    parser.add_argument("--ignore-fsync", choices=["files", "folders"], default="", help="to see that this is found")
    parser.add_argument("--folder", type=Path, help="where the runs write; a temporary folder if not given")
    parser.add_argument("--failures", type=int, default=10, help="how many failures end the trials")
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="torture-", dir=options.folder))
    began = time.monotonic()
    results = run_trials(place, options)
    summary, failed = summarize(results, time.monotonic() - began)
    print(json.dumps({**vars(options), "folder": None, "machine": machine(), **summary}, indent=1))
    if failed:
        print(f"{failed} trials failed. Their files are in {place}")
        return 1
    shutil.rmtree(place)
    return 0


def run_trials(place: Path, options: argparse.Namespace) -> list[Result]:
    """Run trials until there were enough kills, or enough failures."""
    text = write_text(place)
    variants, launchers = options.variant or list(VARIANTS), options.launcher or ["forked", "ranks"]
    if {"forked", "ranks"} & set(launchers):
        warm_up(place, text, variants)
    pairs = list(itertools.product(variants, launchers))
    references = {pair: make_reference(place, text, *pair) for pair in pairs}
    results: list[Result] = []
    kills = failed = 0
    told = time.monotonic()
    while kills < options.kills and failed < options.failures:
        seed = options.seed + len(results)
        variant, launcher = pair = pairs[seed % len(pairs)]
        result = run_trial(
            place / f"trial-{seed}", text, variant, references[pair], seed, launcher, options.ignore_fsync
        )
        results.append(result)
        kills += len(result.kills)
        if result.failures:
            failed += 1
            found = "; ".join(result.failures)
            print(f"seed {seed}, {variant}, {launcher}: {found}. Kills: {result.kills}", flush=True)
        if time.monotonic() - told > 30:
            told = time.monotonic()
            print(f"{kills} kills in {len(results)} trials, {failed} failed", file=sys.stderr, flush=True)
    return results


def write_text(place: Path) -> Path:
    """Write a text to train on, and return its path."""
    words = ["the ", "cat ", "sat\n", "on ", "a ", "mat, ", "and ", "then "]
    text = place / "text.txt"
    text.write_text("".join(np.random.default_rng(0).choice(words, 600)))
    return text


def warm_up(place: Path, text: Path, variants: list[str]) -> None:
    """Train once in this process, so that its forks have all that a process loads once. Leave no thread behind."""
    before, tqdm.monitor_interval = tqdm.monitor_interval, 0
    with contextlib.redirect_stdout(io.StringIO()):
        for variant in variants:
            train.train(make_config(place / "warm", text, variant))
    tqdm.monitor_interval = before
    shutil.rmtree(place / "warm")


def make_reference(place: Path, text: Path, variant: str, launcher: str) -> Reference:
    """Return a run that nothing disturbs."""
    root = place / f"reference-{variant}-{launcher}"
    (root / "root").mkdir(parents=True)
    began = time.monotonic()
    order = Order(str(root / "root"), str(text), variant, str(root / "journal-root"))
    status = LAUNCHERS[launcher](order, root / "output.txt").wait(LONGEST)
    seconds = time.monotonic() - began
    if status != 0:
        raise RuntimeError(f"torture: expected exit status 0 of {variant}, got {status}. See {root / 'output.txt'}")
    calls = int(calls_of(order).read_text()) if launcher == "ranks" else 0
    return Reference(root / "root" / RUN, Disk(root / "journal-root").events, seconds, calls)


def summarize(results: list[Result], seconds: float) -> tuple[dict[str, object], int]:
    """Return the counts of the trials, and the number of those that failed."""
    kills = [kill for result in results for kill in result.kills]
    failed = sum(bool(result.failures) for result in results)
    return {
        "kills": len(kills),
        "trials": len(results),
        "failed": failed,
        "seconds": round(seconds, 1),
        "kinds": dict(collections.Counter(kind for kind, _, _ in kills)),
        "receivers": dict(collections.Counter(moment.partition(", ")[2] for _, moment, _ in kills)),
        "seconds from a kill to the end": round(max((result.longest for result in results), default=0.0), 2),
        "at an event": sum(moment.startswith("event") for _, moment, _ in kills),
        "power cuts that lost something": sum(lost != NOTHING for kind, _, lost in kills if kind == "power cut"),
    }, failed


def machine() -> str:
    """Return the processor, the system and the versions, in one line."""
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")]  # fmt: skip
    return f"{len(names)} x {names[0] if names else 'CPU'}, {platform.release()}, Python {platform.python_version()}"


if __name__ == "__main__":
    sys.exit(main())
