"""Devices, kernels and threads."""
