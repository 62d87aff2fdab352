"""Arrays on the CPU: NumPy, with compiled loops where numba is installed."""
