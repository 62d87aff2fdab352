"""Settings that hold for every test, and the devices that tests run on."""
from contextlib import suppress

import pytest

import tensorlite as tl
import tensorlite.testing.strict
from tensorlite.testing import register_profiles

with suppress(ImportError):  # `make gpu-check` runs where pytest is there and hypothesis may not be
    register_profiles(load=True)

OTHER_DEVICES = ["strict", *(["cuda"] if tl.cuda_is_available() else [])]


@pytest.fixture(params=OTHER_DEVICES)
def other_device(request):
    """Every device but the CPU, for what is compared with the CPU: one as strict as CuPy's, and a GPU where one is."""
    return tl.device(request.param)


@pytest.fixture(params=["cpu", *OTHER_DEVICES])
def device(request):
    """Every device."""
    return tl.device(request.param)
