"""The trials of scripts/soak.py, a kind a file."""
