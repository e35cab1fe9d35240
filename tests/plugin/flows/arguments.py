"""A flow whose decorator has the arguments that the environment names."""

import os

from metaflow import FlowSpec, Parameter, checkpoint, step


class ArgumentsFlow(FlowSpec):
    alpha = Parameter("alpha", default=3)
    constant = 4

    @checkpoint(**eval(os.environ["ARGUMENTS"]))
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ArgumentsFlow()
