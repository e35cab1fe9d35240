"""Which checkpoint a task finds at its start, in foreach branches of equal values."""

from metaflow import FlowSpec, Parameter, checkpoint, current, step
from telling import tell


class PolicyFlow(FlowSpec):
    generation = Parameter("generation", default=1)

    @step
    def start(self):
        self.values = [object, object]
        self.next(self.branch, foreach="values")

    @checkpoint(load_policy="eager")
    @step
    def branch(self):
        info = current.checkpoint.info
        tell(**{f"eager{self.index}": info and [info.metadata, info.name]})
        self.mark = f"generation {self.generation}, branch {self.index}"
        current.checkpoint.save("newest", metadata={"mark": self.mark})
        current.checkpoint.save("aside", latest=False)
        tell(**{f"identifier{self.index}": current.checkpoint.task_identifier})
        self.branch_task = current.pathspec
        self.next(self.join)

    @checkpoint
    @step
    def join(self, inputs):
        self.merge_artifacts(inputs, include=["values", "generation"])
        merged = current.checkpoint.save()
        tell(merged=sorted(current.checkpoint.inspect(merged)["fields"]), touched="values" in vars(self))
        self.branch_tasks = [branch.branch_task for branch in inputs]
        self.next(self.fresh)

    @checkpoint
    @step
    def fresh(self):
        tell(fresh=current.checkpoint.is_loaded)
        current.checkpoint.save()
        of_branches = [current.checkpoint.list(task=task) for task in self.branch_tasks]
        tell(of_branches=[[artifact.name for artifact in found] for found in of_branches])
        tell(namespace=len(current.checkpoint.list(full_namespace=True)))
        self.next(self.none)

    @checkpoint(load_policy="none")
    @step
    def none(self):
        tell(none=[current.checkpoint.is_loaded, current.checkpoint.info])
        current.checkpoint.save()
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    PolicyFlow()
