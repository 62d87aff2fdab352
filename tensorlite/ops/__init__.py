"""Every differentiable function, each written once. A file imports only the files before it in this list."""

from .elementwise import *
from .elementwise import __all__ as _elementwise
from .shape import *
from .shape import __all__ as _shape
from .shape import dim_in

from .reduce import *  # isort: skip
from .reduce import __all__ as _reduce  # isort: skip
from .linalg import *  # isort: skip
from .linalg import __all__ as _linalg  # isort: skip
from .index import *  # isort: skip
from .index import __all__ as _index  # isort: skip
from .gather_scatter import *  # isort: skip
from .gather_scatter import __all__ as _gather_scatter  # isort: skip
from .nn import *  # isort: skip
from .nn import __all__ as _nn  # isort: skip

__all__ = [*_elementwise, *_shape, *_reduce, *_linalg, *_index, *_gather_scatter, *_nn, "dim_in"]
