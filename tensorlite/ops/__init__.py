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
from .select import *  # isort: skip
from .select import __all__ as _select  # isort: skip
from .fused import *  # isort: skip
from .fused import __all__ as _fused  # isort: skip

__all__ = [*_elementwise, *_shape, *_reduce, *_linalg, *_index, *_select, *_fused, "dim_in"]
