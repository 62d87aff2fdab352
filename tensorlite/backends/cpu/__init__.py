"""Arrays on the CPU, by NumPy and by compiled loops."""
