"""The config groups, as data of the package."""
