"""A run that fails and is resumed, by anybody: MODE says where it fails, and stands for a change of code."""

import os

from metaflow import FlowSpec, checkpoint, current, step
from telling import tell

MODE = os.environ["MODE"]


class ResumingFlow(FlowSpec):
    @step
    def start(self):
        self.values = ["equal", "equal"]
        self.next(self.train, foreach="values")

    @checkpoint
    @step
    def train(self):
        info = current.checkpoint.info
        found = info and [info.name, info.pathspec.split("/")[1], info.metadata]
        tell(**{f"{MODE} {self.index}": found})
        self.epoch = 0
        if info:
            current.checkpoint.load()
        tell(**{f"{MODE} {self.index} epoch": self.epoch})
        if MODE == "silent":
            raise RuntimeError("dead before its first save")
        self.epoch += 1
        current.checkpoint.save("branch", metadata={"index": self.index})
        if MODE == "first" and self.index == 1:
            raise RuntimeError("dead after a save")
        self.next(self.tune)

    @checkpoint(load_policy="eager")
    @step
    def tune(self, inputs):
        self.rounds = 0
        if current.checkpoint.is_loaded:
            current.checkpoint.load()
        tell(**{f"{MODE} tune": self.rounds, f"{MODE} epochs": [one.epoch for one in inputs]})
        self.rounds += 1
        current.checkpoint.save()
        if MODE == "third":
            raise RuntimeError("interrupted, to change the code")
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ResumingFlow()
