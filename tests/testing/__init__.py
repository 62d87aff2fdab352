"""Tests of tensorlite.testing, and the wrong gradients that it must find."""
