"""A task that dies twice, beside a card of the user's own; two ranks; steps with a card and without."""

import threading

from metaflow import FlowSpec, card, checkpoint, current, parallel, retry, step
from metaflow.cards import Markdown

from ckptstore.errors import UnserializableError


class CardFlow(FlowSpec):
    @retry(times=2, minutes_between_retries=0)
    @card(type="blank", id="mine")
    @checkpoint
    @step
    def start(self):
        current.card["mine"].append(Markdown("the user's own"))
        save = current.checkpoint.save
        self.epoch = 0
        if current.checkpoint.is_loaded:
            current.checkpoint.load()
        for wait in (True, False):
            self.epoch += 1
            save("epoch", metadata={"epoch": self.epoch, "loss": 1 / self.epoch}, wait=wait)
        if current.retry_count < 2:
            raise RuntimeError("dies")
        side = save("side", latest=False)
        current.checkpoint.delete(side)
        self.lock = threading.Lock()
        try:
            save("broken")
        except UnserializableError:
            del self.lock
        # What was before this attempt is looked up beside the step.
        for thread in threading.enumerate():
            if thread.name == "ckptstore-history":
                thread.join()
        self.next(self.rank, num_parallel=2)

    @parallel
    @checkpoint(include=["n"])
    @step
    def rank(self):
        self.n = current.parallel.node_index
        current.checkpoint.save(f"rank {self.n}")
        self.next(self.join)

    @checkpoint(show_card=False)
    @step
    def join(self, inputs):
        self.next(self.end)

    @checkpoint
    @step
    def end(self):
        pass


if __name__ == "__main__":
    CardFlow()
