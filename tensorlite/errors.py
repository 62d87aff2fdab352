"""The exceptions that tensorlite raises.

Each one also derives from the built-in exceptions that users of NumPy or PyTorch would catch in the same place.
Dimensions and indices out of range raise ``IndexError``; a value of the wrong type raises ``TypeError``.
"""

import numpy as np

__all__ = ["AnomalyError", "DTypeError", "DeviceError", "GraphError", "LinAlgError", "ShapeError", "VersionError"]


class ShapeError(RuntimeError, ValueError):
    """An error for shapes that do not fit each other or the op."""


class DTypeError(RuntimeError, TypeError):
    """An error for a dtype that an op does not accept, or for dtypes that may not be mixed."""


class DeviceError(RuntimeError):
    """An error for a device that cannot be used, or for tensors of one op on different devices."""


class LinAlgError(RuntimeError, np.linalg.LinAlgError):
    """An error for a matrix that an op cannot invert or factorize."""


class GraphError(RuntimeError):
    """An error for a gradient that cannot be computed from the graph that was recorded."""


class VersionError(GraphError):
    """An error for a value that the backward pass needs, and that was changed in place after it was saved."""


class AnomalyError(RuntimeError):
    """An error for the first NaN or infinity inside ``detect_anomaly()``."""
