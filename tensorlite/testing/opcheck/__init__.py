"""Checks of everything that an op promises: memory, dtypes, layouts, values, errors."""
