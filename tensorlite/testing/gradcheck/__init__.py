"""Checks of gradients against numerical derivatives."""
