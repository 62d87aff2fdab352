"""Tests of the ops: values, gradients of first and second order, errors, comparison with PyTorch."""
