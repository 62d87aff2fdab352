"""The explorer: a page that shows a graph and steps through its backward pass.

    tl.explore(loss, "loss.html")

``Explorer.data`` is a dict that JSON can hold. Indices point into its lists:

- ``version``, ``title``, and ``notes``: sentences for the user.
- ``modules``: ``id``, ``name``, ``type``, ``parent``. Parents come before their children.
- ``nodes``: ``id``, ``kind`` (``"op"``, ``"output"``, ``"parameter"``, ``"leaf"``, ``"constant"``,
  ``"module"``), ``op``, ``name``, ``module``, ``shape``, ``dtype``, ``device``, ``bytes``, ``seconds``, ``line``,
  ``value``, ``why_no_value``, ``root``,
  ``order`` (2 for an op that computes a gradient), ``of`` (the node whose rule called it), ``before_hooks`` (the
  gradient that its hooks got), ``doc``, ``saved``, ``not_kept``. Any of them may be None where it is not known. An
  ``"output"`` is one result of an op that has several; it has an edge from that op. ``saved`` lists ``name``,
  ``value`` or else ``text``, ``bytes``, ``node``, ``memory`` (a number for the array that owns it). A ``"module"`` is
  a folded one; its ``count`` is the number of nodes inside. ``not_kept`` lists arguments that no rule needs:
  ``name``, and with a recording ``shape`` and ``value``, or ``text``.
- ``edges``: ``id``, ``from``, ``to``, ``argument``, ``position``.
- ``sources``: ``text``, ``file``, ``line``, ``for`` (the argument; None for a function that serves all) and ``calls``:
  the helper functions and kernels that the rule calls, each with ``name``, ``text``, ``file``, ``line``. A kernel is
  that of ``backends/reference.py``; the compiled ones compute the same.
- ``values``: ``shape``, ``dtype``, ``min``, ``mean``, ``max`` of the finite entries, the shares ``zeros``, ``nans``,
  ``infs``, and ``numbers`` (nested lists; NaN and infinities are the strings "nan", "inf", "-inf", complex numbers are
  strings) or ``heat`` (``rows``, ``cols``, ``cells`` in base64, ``low``, ``high``, ``reduced``). A cell is a byte from
  0 (low) to 254 (high); 255 stands for no finite entry.
- ``forward``: the ids of the nodes, in the order of the steps.
- ``backward``: the steps: ``node``, ``cotangent`` (``cotangents``: a list for an op with several results, else None),
  ``seconds``, ``freed``, ``freed_bytes``, ``error`` (why the rules gave nothing, else None) and ``inputs``: ``edge``,
  ``source``, ``result``, ``summed_dims``, ``sum``, ``cast``, ``before``, ``after``, ``use``, ``uses``, and
  ``formula``: what the rule computes for these shapes and options, as one line of code (None where there is none); see
  :mod:`tensorlite.viz.formulas`.
- ``gradients``: ``node`` and ``value``.
- ``checks``: ``edge``, ``analytic`` and ``numeric`` (in the shape of the input, or one number for each of the
  ``entries`` of a sample), ``ok`` (None if nothing is known), ``error`` (the largest relative one), ``kinks``
  (``index``, ``low``, ``high``), ``why_not``.
"""

from .explorer import Explorer, explore
from .op_recording import recording

__all__ = ["Explorer", "explore", "recording"]
