"""Checkpoints outside of the task: in scripts, notebooks and the processes that a task starts."""
