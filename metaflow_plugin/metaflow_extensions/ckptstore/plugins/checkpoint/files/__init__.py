"""The files of ``current.checkpoint.directory``: collected, restored, and what a task does with them."""
