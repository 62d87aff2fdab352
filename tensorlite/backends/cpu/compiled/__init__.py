"""Kernels that numba compiles. This is the only folder that imports numba."""
