"""What a curvature operator's products tell: eigenpairs, traces, diagonals, densities."""
