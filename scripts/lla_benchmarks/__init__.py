"""What `scripts/bench_lla.py` measures: the cases, and what they are made of."""
