"""Fused maths on raw arrays. ``reference`` is the text; faster twins carry the same names."""
