"""Branches of equal values that are no JSON, one of them with a step that goes back to itself; each dies once."""

from metaflow import FlowSpec, checkpoint, current, namespace, retry, step
from telling import tell

namespace(None)
EQUAL = [{1, 2}, {1, 2}]


class NestingFlow(FlowSpec):
    @step
    def start(self):
        self.outer = EQUAL
        self.next(self.split, foreach="outer")

    @step
    def split(self):
        self.inner = EQUAL if self.index else EQUAL[:1]
        self.branch = self.index
        self.iteration = -1
        self.next(self.leaf, foreach="inner")

    @retry(times=1, minutes_between_retries=0)
    @checkpoint
    @step
    def leaf(self):
        self.iteration += 1
        is_deep = (self.branch, self.index) == (1, 0)
        where = f"{self.branch}.{self.index}.i{self.iteration}"
        tell(**{f"line {where}": current.checkpoint.task_identifier})
        info = current.checkpoint.info
        tell(**{f"found {where} {current.retry_count}": info and info.metadata["where"]})
        current.checkpoint.save(metadata={"where": where})
        if is_deep and self.iteration == 1 and current.retry_count == 0:
            raise RuntimeError("dead")
        self.more = "again" if is_deep and self.iteration < 1 else "done"
        self.next({"again": self.leaf, "done": self.after}, condition="more")

    @checkpoint
    @step
    def after(self):
        tell(**{f"after {self.branch}.{self.index}": current.checkpoint.task_identifier})
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.join_again)

    @checkpoint
    @step
    def join_again(self, inputs):
        tell(join=current.checkpoint.task_identifier)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    NestingFlow()
