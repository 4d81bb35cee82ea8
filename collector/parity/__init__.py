"""podtally's numbers against what others computed of the same node."""
