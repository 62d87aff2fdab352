"""The exceptions tensorlite raises on purpose.

Each one also derives from the built-in exceptions that NumPy or PyTorch users would catch in the same place.
Dimensions and indices out of range are plain ``IndexError``; a value of the wrong type is a plain ``TypeError``.
"""

__all__ = ["AnomalyError", "DTypeError", "DeviceError", "GraphError", "ShapeError", "VersionError"]


class ShapeError(RuntimeError, ValueError):
    """Shapes that do not fit together, or do not fit the op."""


class DTypeError(RuntimeError, TypeError):
    """A dtype that the op cannot take, or dtypes that may not be mixed."""


class DeviceError(RuntimeError):
    """A device that is not there, or tensors of one op on different devices."""


class GraphError(RuntimeError):
    """A gradient that was asked for in a way the graph cannot give."""


class VersionError(GraphError):
    """A value that the backward pass needs was changed in place after it was saved."""


class AnomalyError(RuntimeError):
    """The first NaN or infinity, found by ``detect_anomaly()``."""
