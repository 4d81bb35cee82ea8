"""Attacks on podtally that can be repeated: `make attack`."""
