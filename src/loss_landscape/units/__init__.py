"""Units of a net: which axes of which tensors belong to one, and how they may be permuted."""
