"""From what a user wrote to objects: composed by Hydra, checked in two stages, constructed here and nowhere else."""
