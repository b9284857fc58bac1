"""What is raised of a step that cannot be recorded."""


class UnrecordableError(ValueError):
    """A step that is no fixed graph of tensor operations; its text says why, as the rest of a sentence or a whole one."""
