"""What is exported: the catalogue of all metrics, and the expositions that derive from it."""
