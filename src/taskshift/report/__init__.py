"""What a run's or a sweep's page shows, read from the record and the saved grids."""
