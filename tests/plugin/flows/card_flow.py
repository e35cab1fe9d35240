"""A card that is written while the step runs, beside one of the user's own."""

from metaflow import FlowSpec, card, current, step
from metaflow.cards import Markdown
from metaflow_extensions.ckptstore.plugins.checkpoint.card import Board, CardWriter


class CardFlow(FlowSpec):
    @card(type="blank", id="mine")
    @step
    def start(self):
        current.card["mine"].append(Markdown("the user's own"))
        writer = CardWriter(self._datastore._storage_impl, current.pathspec, log=print)
        board = Board(current.pathspec, current.retry_count, writer=writer)
        board.save_failed(board.save_started("epoch", {"val_loss": 0.5}), OSError("no space"))
        board.finish()
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    CardFlow()
