"""Our checkpoints beside an installed metaflow-checkpoint, whose other decorators stay."""

import os
import tempfile

from metaflow import (
    Checkpoint,
    FlowSpec,
    checkpoint,
    current,
    huggingface_hub,
    load_model,
    model,
    retry,
    step,
)
from telling import error_of, tell


class BesideFlow(FlowSpec):
    @huggingface_hub
    @model
    @retry(times=1, minutes_between_retries=0)
    @checkpoint
    @step
    def start(self):
        tell(decorator=type(current.checkpoint).__module__, client=Checkpoint.__module__)
        if current.retry_count == 0:
            self.epoch = 3
            current.checkpoint.save()
            raise RuntimeError("dies")
        current.checkpoint.load()
        folder = tempfile.mkdtemp(dir=os.environ["FOLDER"])
        with open(os.path.join(folder, "weights.txt"), "w") as file:
            file.write("a model")
        self.saved = current.model.save(folder, label="ours")
        tell(epoch=self.epoch, model=self.read(self.saved))
        theirs = self.save_as_theirs(folder)
        tell(theirs=self.read(theirs), refused=self.refusals(theirs))
        self.next(self.end)

    def save_as_theirs(self, folder):
        from metaflow_extensions.obcheckpoint.plugins.machine_learning_utilities.checkpoints import (
            constructors,
        )
        from metaflow_extensions.obcheckpoint.toplevel import toplevel

        client = constructors._instantiate_checkpoint_for_writes(
            toplevel.Checkpoint(), flow=self, scope="scope", task_identifier="task"
        )
        return client.save(folder, name="best")

    def read(self, reference):
        folder = tempfile.mkdtemp(dir=os.environ["FOLDER"])
        load_model(reference, folder)
        with open(os.path.join(folder, "weights.txt")) as file:
            return file.read()

    def refusals(self, theirs):
        from metaflow_extensions.obcheckpoint.plugins.machine_learning_utilities import datastructures

        references = [theirs, theirs["key"], datastructures.CheckpointArtifact(**theirs), self.saved]
        takers = [current.checkpoint.load, current.checkpoint.inspect, Checkpoint().load]
        return [error_of(take, one) for one in references for take in takers]

    @step
    def end(self):
        pass


if __name__ == "__main__":
    BesideFlow()
