"""Capture a training step that is the same every time, and replay it without the Python in between.

``guards`` holds what a captured step depends on, ``user_code`` finds it in the Python that runs. ``recorder`` writes
the calls of a step on a ``tape``. ``step`` has the public function :func:`compile`.
"""

from .step import CompiledStep, compile

__all__ = ["CompiledStep", "compile"]
