"""A flow that waits for its twin and then saves beside it, to the same line."""

import os
import time
from pathlib import Path

from metaflow import FlowSpec, checkpoint, current, step
from telling import tell


class RacingFlow(FlowSpec):
    @checkpoint(load_policy="eager")
    @step
    def start(self):
        info, here = current.checkpoint.info, Path(os.environ["MEET"])
        newest = current.checkpoint.list(full_namespace=True)[:1]
        tell(found=info and info.name, newest=[artifact.name for artifact in newest])
        (here / current.run_id).touch()
        while len(list(here.iterdir())) < int(os.environ["TWINS"]):
            time.sleep(0.005)
        for self.epoch in range(10):
            current.checkpoint.save(f"{current.run_id} {self.epoch}", wait=self.epoch % 2 == 0)
        names = [artifact.name for artifact in current.checkpoint.list()]
        tell(own=[name.split()[1] for name in names], run=current.run_id)
        everybody = current.checkpoint.list(full_namespace=True)
        tell(versions=[artifact.version_id for artifact in everybody])
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    RacingFlow()
