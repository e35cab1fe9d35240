"""A flow without the decorator, for ``--with checkpoint``."""

from metaflow import FlowSpec, current, step


class WithCheckpointFlow(FlowSpec):
    @step
    def start(self):
        (decorator,) = [found for found in type(self).start.decorators if found.name == "checkpoint"]
        options = decorator._options
        print(
            f"policy {options.load_policy}, background {options.background}, include {options.include}, "
            f"line {current.checkpoint.task_identifier}"
        )
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    WithCheckpointFlow()
