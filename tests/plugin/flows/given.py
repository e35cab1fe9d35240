"""A flow of a project whose start comes from what POLICY says; saves and tells what it found."""

import os

from metaflow import FlowSpec, Run, Task, checkpoint, current, project, step
from telling import tell


@project(name="given")
class GivenFlow(FlowSpec):
    @checkpoint(load_policy=eval(os.environ["POLICY"], {"Run": Run, "Task": Task}))
    @step
    def start(self):
        info = current.checkpoint.info
        self.total = 0
        if info:
            current.checkpoint.load()
        tell(found=info and [info.name, info.pathspec], total=self.total)
        self.total += 1
        key = current.checkpoint.save("saved", metadata={"total": self.total}).key
        tell(line=current.checkpoint.task_identifier, key=key, task=current.pathspec)
        if os.environ.get("DIES"):
            raise RuntimeError("dead after a save")
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    GivenFlow()
