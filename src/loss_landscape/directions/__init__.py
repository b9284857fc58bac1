"""Directions to look along: random, of the gradient, the Hessian, a trajectory."""
