"""Which checkpoint a task finds when it starts."""
