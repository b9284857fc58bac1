"""How `--multirun` expands and carries out its jobs."""
