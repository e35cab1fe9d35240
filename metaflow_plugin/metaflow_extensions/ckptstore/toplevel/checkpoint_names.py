"""What ``from metaflow import ...`` gives of this extension, beside what its plugins are."""

from ..plugins.checkpoint.client import Checkpoint

__all__ = ["Checkpoint"]
