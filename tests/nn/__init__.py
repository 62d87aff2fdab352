"""Layers and their functions."""
