"""Settings of every test, and the devices that tests run on.

A test that takes the fixture ``device`` or ``other_device`` has the marker ``device``. ``--device cuda`` chooses the
device, so ``pytest -m device --device cuda`` runs on a GPU what the strict device runs on a CPU.
"""

import os
from contextlib import suppress

import pytest

import tensorlite as tl
import tensorlite.testing.strict
from tensorlite.testing import register_profiles
from tests.support.browser import chromium, new_page  # noqa: F401, fixtures

if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    # The workers share the cores. Each gets at least two threads, so that the tests also run loops that threads share.
    os.environ.setdefault("TENSORLITE_NUM_THREADS", str(max(2, (os.cpu_count() or 1) // int(workers))))

# Every run has the same examples. `make nightly` chooses new ones.
os.environ.setdefault("TENSORLITE_TESTING_PROFILE", "ci")

with suppress(ImportError):  # a GPU machine may have pytest without hypothesis
    register_profiles(load=True)


def pytest_addoption(parser):
    parser.addoption(
        "--device", action="append", metavar="DEVICE",
        help="a device for the tests that compare one with the CPU: strict or cuda; repeat it for several. "
        "Default: strict, and cuda where there is a GPU.",
    )  # fmt: skip


def pytest_configure(config):
    config.addinivalue_line("markers", "device: runs on the devices that --device names")
    for name in config.getoption("--device") or ():
        try:
            tl.zeros(1, device=name)
        except tl.DeviceError as error:
            raise pytest.UsageError(f"--device {name}: {error}") from None


def other_devices(config):
    return config.getoption("--device") or ["strict", *(["cuda"] if tl.cuda_is_available() else [])]


def pytest_generate_tests(metafunc):
    others = other_devices(metafunc.config)
    own = {mark.args[0] for mark in metafunc.definition.iter_markers("parametrize") if isinstance(mark.args[0], str)}
    for name, devices in (("other_device", others), ("device", ["cpu", *others])):
        if name in metafunc.fixturenames and name not in own:
            metafunc.parametrize(name, devices, indirect=True)


def pytest_collection_modifyitems(items):
    for item in items:
        if {"device", "other_device"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("device")


@pytest.fixture
def other_device(request):
    """Return each device that --device names, for comparison with the CPU."""
    return tl.device(request.param)


@pytest.fixture
def device(request):
    """Return the CPU, and each device that --device names."""
    return tl.device(request.param)
