"""@checkpoint added by mutators, with arguments from a configuration."""

from metaflow import Config, FlowMutator, FlowSpec, StepMutator, checkpoint, config_expr, current, step
from telling import tell


class checkpointing(FlowMutator):
    """Give every step @checkpoint that has none, but the ends of the flow."""

    def mutate(self, mutable_flow):
        for name, mutable_step in mutable_flow.steps:
            if name == "by_class":
                mutable_step.add_decorator(checkpoint, deco_kwargs={"include": ["epoch"]})
            elif name not in ("start", "end"):
                mutable_step.add_decorator(
                    "checkpoint", deco_kwargs={"load_policy": mutable_flow.settings.policy}
                )


class stepwise(StepMutator):
    def init(self, background):
        self.background = background

    def mutate(self, mutable_step):
        mutable_step.add_decorator(
            f'checkpoint:background={self.background},exclude=["other"]', duplicates=mutable_step.OVERRIDE
        )


@checkpointing
class MutatorsFlow(FlowSpec):
    settings = Config(
        "settings", default_value='{"policy": "eager", "fields": ["epoch", "model"], "yes": true}'
    )

    @step
    def start(self):
        tell(start=hasattr(current, "checkpoint"))
        self.next(self.by_name)

    @step
    def by_name(self):
        self.saves()
        self.next(self.by_class)

    @step
    def by_class(self):
        self.saves()
        self.next(self.by_step)

    @stepwise(config_expr("settings.yes"))
    @checkpoint(load_policy="none")
    @step
    def by_step(self):
        self.saves()
        self.next(self.by_config)

    @checkpoint(
        load_policy=config_expr("settings.policy"),
        include=config_expr("settings.fields"),
        background=config_expr("settings.yes"),
    )
    @step
    def by_config(self):
        self.model = "model"
        self.saves()
        self.next(self.end)

    def saves(self):
        self.epoch, self.other = 1, 2
        (decorator,) = [
            found for found in getattr(type(self), current.step_name).decorators if found.name == "checkpoint"
        ]
        options = decorator._options
        fields = sorted(current.checkpoint.inspect(current.checkpoint.save())["fields"])
        tell(**{current.step_name: [options.load_policy, options.background, fields]})

    @step
    def end(self):
        pass


if __name__ == "__main__":
    MutatorsFlow()
