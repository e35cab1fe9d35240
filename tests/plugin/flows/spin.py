"""Steps to be tried out one by one with `spin`, of a flow that has run."""

import os

from metaflow import FlowSpec, checkpoint, current, step
from telling import error_of, tell


class SpinFlow(FlowSpec):
    @step
    def start(self):
        self.given = "of the start"
        self.branches = [1, 1]
        self.next(self.train, foreach="branches")

    @checkpoint(load_policy="eager")
    @step
    def train(self):
        checkpoints = current.checkpoint
        tell(found=checkpoints.info and checkpoints.info.metadata["who"], line=checkpoints.task_identifier)
        self.who = os.environ.get("WHO", "the run")
        self.kept = checkpoints.save(metadata={"who": self.who}, wait=False)
        self.who = None
        checkpoints.load(self.kept)
        tell(restored=[self.who, self.given], url=self.kept.url, own=len(checkpoints.list()))
        if "OF_THE_RUN" in os.environ:
            found = checkpoints.list(task=os.environ["OF_THE_RUN"])
            tell(of_the_run=[artifact.metadata["who"] for artifact in found])
        self.next(self.join)

    @checkpoint
    @step
    def join(self, inputs):
        tell(fresh=current.checkpoint.is_loaded)
        for one in inputs:
            current.checkpoint.load(one.kept)
            tell(
                **{f"joined {one.index}": self.who, "inspected": sorted(current.checkpoint.inspect(one.kept))}
            )
        tell(saved=error_of(current.checkpoint.save))
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    SpinFlow()
