"""A flow for machines where nothing is installed: a plain step, one that saves and dies, and one more."""

from metaflow import FlowSpec, checkpoint, current, retry, step


class RemoteFlow(FlowSpec):
    @step
    def start(self):
        print("the plain step runs")
        self.next(self.train)

    @retry(times=1, minutes_between_retries=0)
    @checkpoint
    @step
    def train(self):
        print("the checkpointed step runs")
        self.epoch = 0
        if current.checkpoint.is_loaded:
            current.checkpoint.load()
        print(f"starts at epoch {self.epoch}")
        self.epoch += 3
        current.checkpoint.save()
        if current.retry_count == 0:
            raise RuntimeError("the machine is gone")
        self.next(self.end)

    @step
    def end(self):
        print(f"ends after epoch {self.epoch}")


if __name__ == "__main__":
    RemoteFlow()
