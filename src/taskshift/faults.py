"""What a user can mend, said in sentences; `boundary.py` prints them and ends with status 1."""


class Fault(Exception):
    """One or more sentences, each naming what was expected, what came, and what to do next."""

    def __init__(self, *sentences: str):
        super().__init__("\n".join(sentences))
        self.sentences = sentences
