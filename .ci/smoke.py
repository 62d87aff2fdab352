"""Check the installed wheel, in an environment that has only numpy in addition, outside of the source tree."""
import importlib
import sys
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import tensorlite as tl

assert Path(tl.__file__).is_relative_to(sys.prefix), tl.__file__
assert tl.__version__ == version("tensorlite")
assert (files("tensorlite") / "py.typed").is_file()
assert (files("tensorlite.backends.cuda") / "elementwise.cu").is_file()

for name in ("autograd", "func", "nn", "optim", "serialization"):
    importlib.import_module(f"tensorlite.{name}")

x = tl.tensor([1.0, 2.0], requires_grad=True)
(x * x).sum().backward()
assert x.grad.tolist() == [2.0, 4.0]

import gpt  # noqa: E402 - after the checks of tensorlite; it needs no extra

assert list((files(gpt) / "config" / "presets").iterdir())
print(f"tensorlite {tl.__version__} from {Path(tl.__file__).parent}: imports and differentiates")
