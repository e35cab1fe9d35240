"""Three ranks on one machine: two save for themselves, one of them for all, and the third dies."""

import os

from metaflow import FlowSpec, checkpoint, current, parallel, retry, step
from telling import tell


class RanksFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.train, num_parallel=3)

    @retry(times=1, minutes_between_retries=0)
    @checkpoint
    @parallel
    @step
    def train(self):
        rank = current.parallel.node_index
        found = current.checkpoint.info
        self.state = None
        if found:
            current.checkpoint.load()
        tell(
            **{
                f"{rank} {current.retry_count}": {
                    "found": found and [found.name, found.pathspec == current.pathspec, found.shared],
                    "state": self.state,
                    "line": current.checkpoint.task_identifier,
                    "task": current.task_id,
                }
            }
        )
        self.state = f"state of {rank}"
        if current.retry_count == 0 and rank == 2:
            os._exit(1)
        if current.retry_count == 0:
            current.checkpoint.save("own")
        if current.retry_count == 0 and rank == 1:
            current.checkpoint.save("for all", shared=True)
        self.next(self.join)

    @checkpoint
    @step
    def join(self, inputs):
        tasks = inputs[0]._control_mapper_tasks
        listed = {task: current.checkpoint.list(task=f"{current.flow_name}/{task}") for task in tasks}
        tell(listed={task.split("/")[2]: [one.name for one in found] for task, found in listed.items()})
        self.next(self.end)

    def _tasks(self, inputs):
        return [path.rpartition("/")[2] for path in inputs[0]._control_mapper_tasks]

    @step
    def end(self):
        pass


if __name__ == "__main__":
    RanksFlow()
