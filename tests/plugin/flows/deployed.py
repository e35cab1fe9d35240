"""A flow for schedulers, whose first step dies once, and which is given @checkpoint by a command line too."""

from metaflow import FlowSpec, checkpoint, current, retry, schedule, step


@schedule(daily=True)
class DeployedFlow(FlowSpec):
    @retry(times=2, minutes_between_retries=0)
    @checkpoint(exclude={"scratch", "noise"}, background=True)
    @step
    def start(self):
        self.epoch, self.scratch, self.noise = 0, "scratch", "noise"
        if current.checkpoint.is_loaded:
            current.checkpoint.load()
        print(f"attempt {current.retry_count} of {current.checkpoint.task_identifier} from {self.epoch}")
        self.epoch += 3
        saved = current.checkpoint.save()
        print("saves", sorted(current.checkpoint.inspect(saved)["fields"]))
        if current.retry_count == 0:
            raise RuntimeError("the machine is gone")
        self.trained = current.pathspec
        self.next(self.end)

    @step
    def end(self):
        (decorator,) = [found for found in type(self).end.decorators if found.name == "checkpoint"]
        print(
            "given", decorator._options.load_policy, decorator._options.include, decorator._options.background
        )
        found = current.checkpoint.list(task=self.trained)
        print("lists", [artifact.attempt for artifact in found])
        current.checkpoint.save()


if __name__ == "__main__":
    DeployedFlow()
