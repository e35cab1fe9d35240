"""A flow whose task dies and goes on, on whatever datastore it is run; it counts its requests."""

import os

from counting import counted
from metaflow import FlowSpec, checkpoint, current, retry, step
from telling import tell


class OnS3Flow(FlowSpec):
    # The card has requests of its own, which are not to be counted here.
    @retry(times=2, minutes_between_retries=0)
    @checkpoint(show_card=False)
    @step
    def start(self):
        with counted() as requests:
            self.train()
        self.train_task = current.pathspec
        methods = sorted({method for method, _ in requests})
        tell(**{f"methods{current.retry_count}": methods, "train_task": current.pathspec})
        self.next(self.look)

    def train(self):
        save = current.checkpoint.save
        if current.retry_count == 0:
            self.epoch, self.weights = 1, list(range(20_000))
            save("first", metadata={"epoch": 1})
            with counted() as requests:
                self.epoch = 2
                tell(url=save("second").url)
            tell(tiny=requests)
            raise RuntimeError("the machine is gone")
        with counted() as requests:
            current.checkpoint.load()
        tell(found=current.checkpoint.info.name, loads=requests)
        tell(state=[self.epoch, self.weights == list(range(20_000))])
        for n in range(500):
            setattr(self, f"small{n}", [n])
        with counted() as requests:
            pending = save("many", wait=False)
            self.epoch = 3
            pending.wait()
        tell(many=requests, fields=len(current.checkpoint.inspect(pending)["fields"]))
        for n in range(500):
            delattr(self, f"small{n}")

    @checkpoint(load_policy="none")
    @step
    def look(self):
        found = current.checkpoint.list(task=self.train_task)
        tell(listed=[[artifact.name, artifact.attempt] for artifact in found])
        current.checkpoint.load(found[-1])
        tell(first=self.epoch)
        other = os.environ.get("OTHER_TASK")
        if other:
            found = current.checkpoint.list(task=other)
            tell(elsewhere=[artifact.name for artifact in found], there=found[0].url)
            for reference in (found[-1], found[-1].to_dict()):
                self.epoch = None
                current.checkpoint.load(reference)
                assert self.epoch == 1
            tell(inspected=sorted(current.checkpoint.inspect(found[-1])["fields"]))
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    OnS3Flow()
