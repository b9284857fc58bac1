"""What a landscape's numbers say, and what they can't: hints with evidence, caveats and what would settle them."""
