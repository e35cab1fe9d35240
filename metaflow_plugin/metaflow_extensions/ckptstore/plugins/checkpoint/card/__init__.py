"""The card of a task: its checkpoints on one page, in the words of whoever looks at a run.

``Board`` collects what the task's own process saves and loads, ``render`` makes
the page of it, ``CardWriter`` stores the page where Metaflow looks for cards.
Nothing here lists or reads the store: what this process did it knows.
"""

from .board import Board
from .writer import CARD_ID, CARD_TYPE, CardWriter

__all__ = ["CARD_ID", "CARD_TYPE", "Board", "CardWriter"]
