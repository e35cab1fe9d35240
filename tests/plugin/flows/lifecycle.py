"""One task that dies in every way, attempt by attempt, and a later step that looks back."""

import os

import numpy as np
from metaflow import FlowSpec, Parameter, Task, checkpoint, current, retry, step
from telling import error_of, tell


class LifecycleFlow(FlowSpec):
    alpha = Parameter("alpha", default=3)

    @step
    def start(self):
        self.next(self.train)

    @retry(times=3, minutes_between_retries=0)
    @checkpoint
    @step
    def train(self):
        save, attempt = current.checkpoint.save, current.retry_count
        info = current.checkpoint.info
        found = info and [info.name, info.attempt, info.metadata]
        tell(**{f"found{attempt}": found, f"loaded{attempt}": current.checkpoint.is_loaded})
        if attempt == 0:
            tell(
                load_without=error_of(current.checkpoint.load), listed_at_first=len(current.checkpoint.list())
            )
            self.epoch, self.weights = 0, np.arange(5000.0)
            for name in ("a.b", "x/y"):
                self.epoch += 1
                self.weights[0] = self.epoch
                self.kept = save(name, metadata={"epoch": np.int64(self.epoch), "loss": np.float32(0.5)})
            save("side", latest=False)
            raise RuntimeError("dies by exception")
        before = sorted(set(vars(self)) & {"epoch", "weights"})
        current.checkpoint.load()
        tell(
            **{f"state{attempt}": [before, self.epoch, float(self.weights[0]), len(self.weights), self.alpha]}
        )
        self.epoch += 1
        self.weights[0] = self.epoch
        if attempt == 1:
            pending = save("z.1", wait=False)
            self.weights[0] = -1
            pending.wait()
            os._exit(9)
        if attempt == 2:
            save("flushed", wait=False)
            self.weights[0] = -1
            raise RuntimeError("dies with a save in the background")
        self.last = save("last", wait=False)
        self.weights[0] = -1
        self.train_task = current.pathspec
        self.next(self.look)

    @checkpoint(load_policy=None)
    @step
    def look(self):
        listed = current.checkpoint.list
        found = listed(task=self.train_task)
        tell(
            names=[artifact.name for artifact in found],
            attempts=[artifact.attempt for artifact in found],
            of_attempt_0=[artifact.name for artifact in listed(task=self.train_task, attempt=0)],
            of_name=[artifact.name for artifact in listed(name="a.b", task=self.train_task)],
            of_task=[artifact.name for artifact in listed(task=Task(self.train_task))],
            own=len(listed()),
            whole=len(listed(full_namespace=True)),
            metadata=found[-1].metadata,
            dicts=[artifact.to_dict() for artifact in found[:1]],
        )
        for artifact in found:
            current.checkpoint.load(artifact)
            by_artifact = self.epoch, float(self.weights[0])
            current.checkpoint.load(artifact.to_dict())
            by_dict = self.epoch, float(self.weights[0])
            current.checkpoint.load(artifact.key)
            tell(**{f"ways {artifact.name}": [by_artifact, by_dict, (self.epoch, float(self.weights[0]))]})
            inspected = current.checkpoint.inspect(artifact)
            assert inspected == current.checkpoint.inspect(artifact.to_dict())
            assert inspected == current.checkpoint.inspect(artifact.key)
            assert inspected == artifact.implicit_manifest
        tell(inspected=inspected, last_equals=self.last == found[0], url=found[0].url)
        tell(wrong_key=error_of(current.checkpoint.load, "nonsense"))
        tell(wrong_type=error_of(current.checkpoint.load, 7))
        tell(wrong_dict=error_of(current.checkpoint.load, {"name": "x"}))
        tell(wrong_task=error_of(listed, task="LifecycleFlow/1"))
        tell(none_found=[current.checkpoint.is_loaded, error_of(current.checkpoint.inspect)])
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    LifecycleFlow()
