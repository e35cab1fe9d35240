"""What no other flow of the tests shows of the defects that checkpoints in flows have had elsewhere."""

import contextlib
import subprocess
import tempfile
import time

from metaflow import FlowSpec, checkpoint, current, namespace, retry, step
from telling import tell


@contextlib.contextmanager
def forbidden(*targets):
    """Count the calls that a save has no need of, and let none through."""
    calls = []

    def refuse(name):
        def refused(*args, **kwargs):
            calls.append(name)
            raise AssertionError(f"{name} is called")

        return refused

    kept = [(module, name, getattr(module, name)) for module, name in targets]
    for module, name, _ in kept:
        setattr(module, name, refuse(name))
    try:
        yield calls
    finally:
        for module, name, original in kept:
            setattr(module, name, original)


class DefectsFlow(FlowSpec):
    @checkpoint
    @step
    def start(self):
        namespace(None)
        self.epoch = 1
        saved = current.checkpoint.save()
        found = current.checkpoint.list()
        tell(without_namespace=[current.checkpoint.task_identifier, saved == found[0], len(found)])
        self.next(self.light)

    @checkpoint
    @step
    def light(self):
        current.checkpoint.save("the first makes the store")
        unneeded = [(subprocess, "Popen"), (tempfile, "mkdtemp"), (tempfile, "NamedTemporaryFile")]
        with forbidden(*unneeded) as calls:
            current.checkpoint.save("blocking")
            current.checkpoint.save("in the background", wait=False).wait()
            current.checkpoint.load(current.checkpoint.list()[0])
        tell(called=calls, saved=[artifact.name for artifact in current.checkpoint.list()])
        self.next(self.skewed)

    @retry(times=2, minutes_between_retries=0)
    @checkpoint
    @step
    def skewed(self):
        """Each attempt runs on a machine whose clock is a day behind the one before."""
        behind = current.retry_count * 86_400
        now, now_ns = time.time, time.time_ns
        time.time, time.time_ns = lambda: now() - behind, lambda: now_ns() - behind * 10**9
        info = current.checkpoint.info
        tell(**{f"skewed{current.retry_count}": info and info.name})
        for name in ("first", "second"):
            self.epoch = f"{name} of attempt {current.retry_count}"
            current.checkpoint.save(self.epoch)
        if current.retry_count < 2:
            raise RuntimeError("the machine is gone")
        found = current.checkpoint.list()
        tell(
            order=[artifact.name for artifact in found],
            falling=found[0].created_on < found[-1].created_on,
            zones=[artifact.created_on[-6:] for artifact in found],
        )
        self.next(self.deleted)

    @retry(times=2, minutes_between_retries=0)
    @checkpoint
    @step
    def deleted(self):
        checkpoints, attempt = current.checkpoint, current.retry_count
        tell(**{f"deleted{attempt}": checkpoints.info and checkpoints.info.name})
        if attempt == 0:
            for name in ("epoch.1", "epoch.10", "epoch.11"):
                checkpoints.save(name)
            checkpoints.delete(checkpoints.list("epoch.11")[0])
            raise RuntimeError("dies after it deleted the newest")
        if attempt == 1:
            checkpoints.delete(checkpoints.list("epoch.1")[0])
            tell(left=[artifact.name for artifact in checkpoints.list()])
            raise RuntimeError("dies after it deleted the oldest")
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    DefectsFlow()
