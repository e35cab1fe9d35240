"""A checkpoint store for long jobs."""
