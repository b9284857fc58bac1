"""Pictures of the results; the only room that imports matplotlib."""
