"""The search for wrong gradients among all cases, as a command.

    python -m tests.testing.mutants                  # or: make mutants
    python -m tests.testing.mutants "ties,1 in 3"    # only cases with one of these words in their description
    python -m tests.testing.mutants --seeds 20       # each case with 20 seeds and the 100 examples of a user

Each case is given to ``gradtest``, as a user would. The exit status is 1 if a wrong gradient is not found, unless the
case gives a reason, or if a right one is reported.
"""
from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import hypothesis
import numpy as np

from tensorlite.testing import GradientError, OpSpec, gradtests, plugin
from tests.testing import right_ops, wrong_in_a_part, wrong_ops  # noqa: F401 - they fill BUGS and RIGHT
from tests.testing.gradient_cases import BUGS, RIGHT, Case
from tests.testing.wrong_specs import SPECS

BUG_EXAMPLES = 400
USER_EXAMPLES = 100
RIGHT_EXAMPLES = 20_000  # for all right ops together

@dataclass
class Outcome:
    """The result of gradtest for a case.

    examples: the number until the first failure, or of all. size: the number of entries of the shrunken arguments.
    """

    examples: int = 0
    caught_by: str = ""
    size: int = 0
    message: str = ""
    checked: int = 0
    inconclusive: int = 0
    kinks: int = 0


class _Caught(BaseException):
    """An exception that ends a search at the first failure, without shrinking."""


def _check_name(error: BaseException) -> str:
    if not isinstance(error, AssertionError):
        return type(error).__name__
    first = str(error).split("\n")[0].partition(": ")[2]
    if first.endswith(" is wrong"):
        return next((f"{word} order" for word in ("second", "third") if first.startswith(f"the {word}")), "gradient")
    for words, name in (
        ("under create_graph", "create_graph"), ("shares memory", "aliasing"),
        ("changes when another", "reused memory"),
        ("in place", "mutation"), ("two calls", "determinism"), ("memory layout", "layout"),
        ("two backward passes", "determinism"), ("float32", "float32"), (" is float", "form"), ("vjp returned", "form"),
        ("nothing", "inconclusive"), ("no derivative", "inconclusive"),
    ):  # fmt: skip
        if words in first:
            return name
    return "other"


def search(case: Case, examples: int, shrink: bool = True, seed: int | None = None) -> Outcome:
    """Run gradtest on a case with this number of examples, which are the same in every run with the same seed."""
    found = Outcome()

    def counting(check: Callable[..., Any], new: bool) -> Callable[..., Any]:
        def watched(f: Any, *args: Any, **kwargs: Any) -> Any:
            if new and not found.caught_by:
                found.examples += 1
            try:
                report = check(f, *args, **kwargs)
            except Exception as error:
                found.caught_by = found.caught_by or _check_name(error)
                found.size = sum(math.prod(x.shape) for x in args)
                found.message = f"{type(error).__name__}: {error}"
                if not shrink:
                    raise _Caught from error
                raise
            if report is not None and not found.caught_by:
                found.checked += report.checked
                found.inconclusive += report.inconclusive
                found.kinks += report.kinks
            return report

        return watched

    with (
        mock.patch.object(gradtests, "check_grad", counting(gradtests.check_grad, True)),
        mock.patch.object(gradtests, "check_op", counting(gradtests.check_op, False)),
        mock.patch.dict(plugin._options, profile="ci", examples=examples),
        np.errstate(all="ignore"),
    ):
        test = gradtests.gradtest(case.signature, **case.options)(case.f)
        if seed is not None:
            test = hypothesis.seed(seed)(test)
        try:
            test()
        except _Caught:
            pass
        except Exception as error:
            if not found.caught_by:
                found.caught_by, found.message = _check_name(error), f"{type(error).__name__}: {error}"
    return found


def failed_cases(spec: OpSpec) -> list[str]:
    """Return the names of the cases of a spec that fail."""
    found = []
    with np.errstate(all="ignore"):
        for case in spec.cases():
            try:
                case.run()
            except GradientError:
                found.append(case.name)
    return found


def with_seeds(bugs: list[Case], rights: list[Case], seeds: int) -> int:
    """Print how many seeds find each bug and reject each right op. Return the number of cases with a wrong answer."""
    wrong = 0
    for case in bugs + rights:
        is_bug = case in bugs
        found = sum(bool(search(case, USER_EXAMPLES, False, k).caught_by) for k in range(seeds))
        expected = seeds if is_bug and not case.missed else 0
        wrong += found != expected
        if found != expected:
            print(f"{'bug' if is_bug else 'right op'} {case.what}: {found} of {seeds} seeds fail", flush=True)
    print(f"{len(bugs)} bugs and {len(rights)} right ops with {seeds} seeds: {wrong} not as they should be")
    return wrong


def _chosen(cases: list[Case], words: str) -> list[Case]:
    some = [word.strip() for word in words.split(",") if word.strip()]
    return [case for case in cases if not some or any(word in f"{case.what} {case.f.__name__}" for word in some)]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.testing.mutants", description="Test the gradient checks.")
    parser.add_argument("words", nargs="?", default="", help="only cases with one of these words, with commas between")
    parser.add_argument("--examples", type=int, default=RIGHT_EXAMPLES, help="for all right ops together")
    parser.add_argument("--messages", action="store_true", help="print the message of the check for each bug")
    parser.add_argument("--seeds", type=int, default=0, help="try each case with this number of seeds instead")
    given = parser.parse_args(arguments)
    bad, caught = 0, 0
    bugs, rights = _chosen(BUGS, given.words), _chosen(RIGHT, given.words)
    if given.seeds:
        return 1 if with_seeds(bugs, rights, given.seeds) else 0
    began = time.perf_counter()
    print(f"{'bug':56} {'op':26} {'caught by':14} {'examples':>8} {'entries':>8}")
    for case in bugs:
        found = search(case, BUG_EXAMPLES)
        caught += bool(found.caught_by)
        outcome = found.caught_by or ("missed, known" if case.missed else "MISSED")
        bad += not found.caught_by and not case.missed
        tail = f"{found.size:8}" if found.caught_by else f"        ({case.missed})" if case.missed else ""
        print(f"{case.what:56} {case.f.__name__:26} {outcome:14} {found.examples:8} {tail}", flush=True)
        if given.messages:
            print("    " + found.message.replace("\n", "\n    "))
    for what, spec in SPECS.items() if not given.words else ():
        failed = failed_cases(spec)
        bad += not failed
        print(f"{what:56} {spec.name:26} {', '.join(failed) or 'MISSED'} of optest")
    known = sum(bool(case.missed) for case in bugs)
    print(f"caught {caught} of {len(bugs)}, {known} are known to be impossible to find\n")

    print(f"{'right op':56} {'examples':>8} {'derivatives':>12} {'inconclusive':>12} {'kinks':>8}")
    examples, alarms = 0, 0
    share = -(-given.examples // len(RIGHT))
    for case in rights:
        found = search(case, share)
        examples += found.examples
        alarms += bool(found.caught_by)
        alarm = f"  FALSE ALARM by {found.caught_by}" if found.caught_by else ""
        print(
            f"{case.what:56} {found.examples:8} {found.checked:12,} {found.inconclusive:12,} {found.kinks:8,}{alarm}",
            flush=True,
        )
        if found.caught_by:
            print("    " + found.message.replace("\n", "\n    "))
    seconds = time.perf_counter() - began
    print(f"{len(rights)} right ops, {examples:,} examples, {alarms} false alarms ({seconds:.0f} s)")
    return 1 if bad or alarms else 0


if __name__ == "__main__":
    os.environ.setdefault("CI", "1")
    sys.exit(main())
