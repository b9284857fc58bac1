"""Nets, losses, batches and options that nobody chose: what `scripts/try_random_nets.py` draws and checks."""
