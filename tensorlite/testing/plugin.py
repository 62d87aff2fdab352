"""The pytest plugin: hypothesis profiles of gradtests, command line options, and a line with the totals.

pytest finds it by its entry point in every run where tensorlite is installed; ``-p no:tensorlite`` switches it off. So
it imports nothing that pytest has not imported already, and hypothesis only when a test needs it.

    pytest --gradtest-profile nightly          # or TENSORLITE_TESTING_PROFILE=nightly
    pytest --gradtest-examples 1000
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest
    from hypothesis import settings

__all__ = ["PROFILES", "register_profiles"]

PROFILES: dict[str, dict[str, Any]] = {
    "dev": {"deadline": None},
    "ci": {"deadline": None, "derandomize": True, "database": None, "print_blob": True},
    "nightly": {"deadline": None, "derandomize": False, "max_examples": 2000, "print_blob": True},
}
"""The settings of each profile. Others are those of the profile that hypothesis has loaded. A deadline would fail on a
busy machine, so none is set."""

VARIABLE = "TENSORLITE_TESTING_PROFILE"
_COUNTS = ("checked", "inconclusive", "kinks")

# The options of the command line, and the counts since the process began.
_options: dict[str, Any] = {"profile": None, "examples": None}
_counted = dict.fromkeys(_COUNTS, 0)


def tally(checked: int, inconclusive: int, kinks: int) -> None:
    """Add to the counts of the running test."""
    for key, count in zip(_COUNTS, (checked, inconclusive, kinks)):
        _counted[key] += count


# ---- profiles -------------------------------------------------------------------------------


def profile_name() -> str:
    """Return the name of the profile.

    It is that of --gradtest-profile, else of TENSORLITE_TESTING_PROFILE, else "ci" if CI is set, else "dev".
    Raises ValueError for an unknown name.
    """
    name = _options["profile"] or os.environ.get(VARIABLE)
    if name and name not in PROFILES:
        raise ValueError(f"{VARIABLE}={name}: unknown profile. Use one of {', '.join(PROFILES)}")
    return name or ("ci" if os.environ.get("CI") else "dev")


def need_hypothesis(name: str) -> None:
    """Raise ImportError, with the command to install it, if hypothesis is missing for ``tensorlite.testing.<name>``."""
    try:
        import hypothesis  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"tensorlite.testing.{name} needs hypothesis ({error}). Install it: pip install 'tensorlite[testing]'"
        ) from None


def register_profiles(load: bool = False) -> None:
    """Register the profiles ``tensorlite-dev``, ``tensorlite-ci`` and ``tensorlite-nightly`` with hypothesis.

    - dev: no deadline; otherwise the settings that hypothesis has loaded.
    - ci: the same examples in every run, so that only a change of the code turns it red. It prints how to reproduce a
      failure.
    - nightly: 2,000 examples, new ones in every run.

    gradtests use these profiles without this call. load: also load the chosen profile for all tests with hypothesis, as
    a line in conftest.py (TENSORLITE_TESTING_PROFILE and CI choose it; see docs/testing.md).
    Raises ImportError without hypothesis, and ValueError if the environment variable is not the name of a profile.
    """
    need_hypothesis("register_profiles")
    from hypothesis import settings

    for name, values in PROFILES.items():
        settings.register_profile(f"tensorlite-{name}", settings.default, **values)
    if load:
        settings.load_profile(f"tensorlite-{profile_name()}")


def chosen_settings(max_examples: int | None, given: settings | None = None) -> settings:
    """Return the settings of one gradtest: those of the chosen profile with a number of examples.

    The number is that of the command line, else of ``given``, else ``max_examples``, else that of the profile.
    given: the settings of the user's ``@settings``. Where they differ from hypothesis's default, they are used.
    """
    from hypothesis import HealthCheck, Phase, settings

    values = dict(PROFILES[profile_name()])
    values["phases"] = [phase for phase in Phase if phase is not Phase.explain]
    quiet = {HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.differing_executors}
    if max_examples:
        values["max_examples"] = max_examples
    if given is not None:
        own = {name: getattr(given, name) for name in _SETTINGS}
        values |= {name: value for name, value in own.items() if value != getattr(settings.default, name)}
        quiet |= set(given.suppress_health_check)
    if _options["examples"]:
        values["max_examples"] = _options["examples"]
    return settings(settings.default, report_multiple_bugs=True, suppress_health_check=sorted(quiet, key=str), **values)


# The settings that a user may give; gradtest decides about the others itself.
_SETTINGS = ("max_examples", "derandomize", "database", "verbosity", "phases", "deadline", "print_blob")


# ---- pytest ---------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("tensorlite", "gradient tests (tensorlite.testing)")
    group.addoption(
        "--gradtest-profile",
        choices=list(PROFILES),
        help=f"the hypothesis profile of gradtests (default: {VARIABLE}, else ci if CI is set, else dev)",
    )
    group.addoption("--gradtest-examples", type=_positive, metavar="N", help="the number of examples of each gradtest")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return int(text)


def pytest_configure(config: pytest.Config) -> None:
    """Apply the options of the command line."""
    config.pluginmanager.register(_Run(dict(_options)), "tensorlite-gradtest")
    _options.update(profile=config.getoption("--gradtest-profile"), examples=config.getoption("--gradtest-examples"))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Restore the options from before this run."""
    run = config.pluginmanager.unregister(name="tensorlite-gradtest")
    if isinstance(run, _Run):
        _options.update(run.options_before)


class _Run:
    """The counts of one run. They are sent in the reports of tests, so those of pytest-xdist's workers count, too."""

    def __init__(self, options_before: dict[str, Any]) -> None:
        self.options_before = options_before
        self.total = dict.fromkeys(_COUNTS, 0)
        self.before = dict(_counted)

    def pytest_runtest_setup(self) -> None:
        self.before = dict(_counted)

    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        found = [(f"gradtest_{key}", _counted[key] - self.before[key]) for key in _COUNTS]
        if any(count for _, count in found):
            item.user_properties += found

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            for name, count in report.user_properties:
                key = name.removeprefix("gradtest_")
                if key != name and key in self.total and isinstance(count, int):
                    self.total[key] += count

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if any(self.total.values()):
            checked, inconclusive, kinks = (f"{self.total[key]:,}" for key in _COUNTS)
            terminalreporter.write_line(
                f"gradtest: {checked} derivatives checked, {inconclusive} inconclusive, {kinks} on a kink"
            )
