"""Measured against the published package, the dense networks and NumPy: see README.md."""
