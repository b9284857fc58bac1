"""How much the loss can rise near the origin."""
