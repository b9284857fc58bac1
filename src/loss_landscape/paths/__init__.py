"""Curves between nets: Bézier and polygonal, their losses, and repaired statistics."""
