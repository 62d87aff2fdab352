"""The pytest plugin: hypothesis profiles for gradtests, their options, and a line that says how much was checked.

pytest finds it by its entry point, in every run where tensorlite is installed; ``-p no:tensorlite`` switches it off. So
it imports nothing that pytest has not imported already, and hypothesis only where a test asks for it.

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
"""What each profile sets; the rest is what hypothesis has loaded. A deadline would fail on a busy machine only."""

VARIABLE = "TENSORLITE_TESTING_PROFILE"
_COUNTS = ("checked", "inconclusive", "kinks")

# What the command line asks for, and what was counted since the process began.
_options: dict[str, Any] = {"profile": None, "examples": None}
_counted = dict.fromkeys(_COUNTS, 0)


def tally(checked: int, inconclusive: int, kinks: int) -> None:
    """Add these derivatives to those of the running test."""
    for key, count in zip(_COUNTS, (checked, inconclusive, kinks)):
        _counted[key] += count


# ---- profiles -------------------------------------------------------------------------------


def profile_name() -> str:
    """By --gradtest-profile, else TENSORLITE_TESTING_PROFILE, else "ci" if CI is set, else "dev"."""
    name = _options["profile"] or os.environ.get(VARIABLE)
    if name and name not in PROFILES:
        raise ValueError(f"{VARIABLE}={name}: no such profile; there are {', '.join(PROFILES)}")
    return name or ("ci" if os.environ.get("CI") else "dev")


def need_hypothesis(name: str) -> None:
    """Raises ImportError that says what to install for ``tensorlite.testing.<name>``, if it is missing."""
    try:
        import hypothesis  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"tensorlite.testing.{name} needs hypothesis ({error}): pip install 'tensorlite[testing]'"
        ) from None


def register_profiles(load: bool = False) -> None:
    """Make the profiles known to hypothesis, as ``tensorlite-dev``, ``tensorlite-ci`` and ``tensorlite-nightly``.

    - dev: no deadline; otherwise what hypothesis has loaded.
    - ci: the same examples every time, so that it is the change under test that turns a run red; prints how to
      reproduce a failure.
    - nightly: 2,000 examples, new ones every time.

    gradtests use them without this. load: also load the chosen one (see TENSORLITE_TESTING_PROFILE and CI in
    docs/testing.md), so that all tests with hypothesis run under it; a line for conftest.py.
    Raises ImportError without hypothesis, ValueError for an environment variable that names no profile.
    """
    need_hypothesis("register_profiles")
    from hypothesis import settings

    for name, values in PROFILES.items():
        settings.register_profile(f"tensorlite-{name}", settings.default, **values)
    if load:
        settings.load_profile(f"tensorlite-{profile_name()}")


def chosen_settings(max_examples: int | None) -> settings:
    """Settings for one gradtest: those of the chosen profile, with as many examples as the command line, the test or
    the profile asks for, in this order."""
    from hypothesis import HealthCheck, Phase, settings

    values = dict(PROFILES[profile_name()])
    examples = _options["examples"] or max_examples
    if examples:
        values["max_examples"] = examples
    return settings(
        settings.default,
        report_multiple_bugs=False,
        phases=[phase for phase in Phase if phase is not Phase.explain],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.differing_executors],
        **values,
    )


# ---- pytest ---------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options."""
    group = parser.getgroup("tensorlite", "gradient tests (tensorlite.testing)")
    group.addoption(
        "--gradtest-profile",
        choices=list(PROFILES),
        help=f"how gradtests draw examples (default: {VARIABLE}, else ci if CI is set, else dev)",
    )
    group.addoption("--gradtest-examples", type=_positive, metavar="N", help="examples for every gradtest")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return int(text)


def pytest_configure(config: pytest.Config) -> None:
    """Take over what the command line says."""
    config.pluginmanager.register(_Run(dict(_options)), "tensorlite-gradtest")
    _options.update(profile=config.getoption("--gradtest-profile"), examples=config.getoption("--gradtest-examples"))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Put back what was there before."""
    run = config.pluginmanager.unregister(name="tensorlite-gradtest")
    if isinstance(run, _Run):
        _options.update(run.options_before)


class _Run:
    """The counts of one run. They travel in the reports of the tests, so those of pytest-xdist's workers arrive too."""

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
