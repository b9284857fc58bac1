"""What the library computes on small nets, number by number, so that two versions of it can be held against each other."""
