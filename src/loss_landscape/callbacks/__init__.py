"""Hooks into trainings: a plain loop, Lightning, and the Trainer of transformers; the last two by their own names."""
