"""A task whose processes save as it does, in every way to start one; and what they may not do."""

import multiprocessing
import os
import subprocess
import sys

import numpy as np
from metaflow import Checkpoint, FlowSpec, checkpoint, current, step
from telling import error_of, tell


def save_in_fork(number):
    Checkpoint().save({"number": number, "by": "fork"}, name="fork")
    current.checkpoint.save("fork of self")
    Checkpoint().save({"number": number}, name="fork at its end", wait=False)


class OutsideFlow(FlowSpec):
    @checkpoint
    @step
    def start(self):
        self.number, self.weights, self.by = 0, np.arange(1000.0), "task"
        with open(os.path.join(current.checkpoint.directory, "notes.txt"), "w") as notes:
            notes.write("kept")
        current.checkpoint.save("task", wait=False)
        self.process("save", "1")
        self.number = 2
        current.checkpoint.save("task")
        self.number = 3
        fork = multiprocessing.get_context("fork").Process(target=save_in_fork, args=(3,))
        fork.start()
        fork.join()
        tell(fork=fork.exitcode)
        with Checkpoint() as client:
            client.save({"number": 4, "by": "client in the task"}, wait=False)
        if "SHORT" not in os.environ:
            self.process("end without closing", "4")
            self.process("together", "5")
        order = [[one.name, one.attempt] for one in current.checkpoint.list()]
        tell(order=order, pathspec=current.pathspec, mine=[one.name for one in Checkpoint().list()])
        if "SHORT" not in os.environ:
            self.process("read a running task", current.pathspec, VARIABLE="")
        tell(of_flow=error_of(Checkpoint().save, self))
        self.task = current.pathspec
        self.next(self.unmarked)

    @step
    def unmarked(self):
        tell(unmarked_save=error_of(Checkpoint().save, {"a": 1}), unmarked_list=error_of(Checkpoint().list))
        with Checkpoint() as client:
            found = client.list(task=self.task, name="task")
            tell(unmarked_reads=client.load(found[0], fields=["number"]))
        self.found = found[0]
        self.next(self.end)

    @step
    def end(self):
        pass

    def process(self, *arguments, **env):
        child = os.path.join(os.path.dirname(os.path.abspath(__file__)), "outside_child.py")
        env = {("METAFLOW_CKPTSTORE_TASK" if name == "VARIABLE" else name): env[name] for name in env}
        subprocess.run([sys.executable, child, *arguments], check=True, env=os.environ | env)


if __name__ == "__main__":
    OutsideFlow()
