"""The geometry around an origin: losses at displacements, along planes, gradients."""
