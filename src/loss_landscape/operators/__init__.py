"""Curvature matrices known by their products: Hessian, Gauss–Newton, Fisher."""
