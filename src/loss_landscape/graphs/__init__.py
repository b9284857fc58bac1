"""Traced computations and what may be rewritten in them; no graph here knows a surface."""
