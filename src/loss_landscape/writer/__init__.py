"""The Writer: a folder of landscapes in a few lines. It computes nothing itself; the Explorer does."""
