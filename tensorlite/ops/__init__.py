"""The differentiable functions that ``tensorlite`` exports. A file imports only files above it in this list."""
# isort: off

from .elementwise import *
from .elementwise import __all__ as _elementwise
from .comparison import *
from .comparison import __all__ as _comparison
from .shape import *
from .shape import __all__ as _shape
from .joining import *
from .joining import __all__ as _joining
from .reduce import *
from .reduce import __all__ as _reduce
from .linalg import *
from .linalg import __all__ as _linalg
from .inverses import *
from .inverses import __all__ as _inverses
from .norms import *
from .norms import __all__ as _norms
from .matrix_functions import *
from .matrix_functions import __all__ as _matrix_functions
from .einstein_sum import *
from .einstein_sum import __all__ as _einstein_sum
from .gather_scatter import *
from .gather_scatter import __all__ as _gather_scatter
from .sorting import *
from .sorting import __all__ as _sorting
from .counting import *
from .counting import __all__ as _counting
from .running import *
from .running import __all__ as _running
from .distances import *
from .distances import __all__ as _distances
from .order_statistics import *
from .order_statistics import __all__ as _order_statistics
from .nn import *
from .nn import __all__ as _nn

__all__ = [
    *_elementwise, *_comparison, *_shape, *_joining, *_reduce, *_linalg, *_inverses, *_norms,
    *_matrix_functions, *_einstein_sum, *_gather_scatter, *_sorting, *_counting, *_running, *_distances,
    *_order_statistics, *_nn,
]  # fmt: skip
