"""A task that is killed in the middle of its saves, attempt by attempt, and a step that saves often and keeps few."""

import os
import signal
import threading

import numpy as np
from holding import die_after_a_chunk, die_after_the_commit, hold_all_commits
from metaflow import FlowSpec, checkpoint, current, retry, step
from telling import tell

from ckptstore import last


class KillsFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.train)

    @retry(times=4, minutes_between_retries=0)
    @checkpoint
    @step
    def train(self):
        checkpoints, attempt = current.checkpoint, current.retry_count
        found = checkpoints.info and [checkpoints.info.name, checkpoints.info.attempt]
        self.epoch, self.weights = -1, None
        if checkpoints.is_loaded:
            checkpoints.load()
        tell(**{f"found{attempt}": found, f"state{attempt}": self.epoch == fingerprint(self.weights)})
        if attempt < 4:
            self.dies(attempt)
        self.train_task = current.pathspec
        self.next(self.many)

    def dies(self, attempt):
        checkpoints = current.checkpoint
        self.at(attempt * 2)
        checkpoints.save(f"whole {attempt}")
        self.at(attempt * 2 + 1)
        if attempt == 0:
            die_after_a_chunk()
            checkpoints.save("never", wait=False)
            self.at(-1)
            threading.Event().wait()
        elif attempt == 1:
            die_after_a_chunk()
            checkpoints.save("never")
        elif attempt == 2:
            hold_all_commits()
            checkpoints.save("never", wait=False)
            os._exit(9)
        else:
            die_after_the_commit()
            checkpoints.save("just in time", wait=False)
            threading.Event().wait()

    def at(self, epoch):
        self.epoch = epoch
        self.weights = np.full(1 << 20, epoch, np.int64)
        self.weights[1:] += np.random.default_rng(epoch + 1).integers(0, 1 << 60, (1 << 20) - 1)

    @checkpoint(keep=last(3), background=True)
    @step
    def many(self):
        tell(names=[artifact.name for artifact in current.checkpoint.list(task=self.train_task)])
        self.weights = None
        for self.epoch in range(1, 51):
            current.checkpoint.save(f"epoch {self.epoch}")
        self.many_task = current.pathspec
        self.next(self.many_and_killed)

    @retry(times=1, minutes_between_retries=0)
    @checkpoint(keep="last(3)", background=True)
    @step
    def many_and_killed(self):
        if current.checkpoint.is_loaded:
            current.checkpoint.load()
            tell(killed_at=[current.checkpoint.info.name, self.epoch])
        else:
            self.epoch = 0
        while self.epoch < 20:
            self.epoch += 1
            current.checkpoint.save(f"epoch {self.epoch}")
            if self.epoch == 10 and current.retry_count == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        self.killed_task = current.pathspec
        self.next(self.end)

    @checkpoint
    @step
    def end(self):
        for fact, task in {"kept": self.many_task, "kept_when_killed": self.killed_task}.items():
            found = current.checkpoint.list(task=task)
            tell(**{fact: [artifact.name for artifact in found]})
            for artifact in found:
                current.checkpoint.load(artifact)
                assert artifact.name == f"epoch {self.epoch}"


def fingerprint(weights):
    """Return the epoch that the weights are of."""
    return -1 if weights is None else int(weights[0])


if __name__ == "__main__":
    KillsFlow()
