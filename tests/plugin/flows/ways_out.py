"""Every way out of a step that Python can see; each is the start of an own step."""

import resource
import sys

import numpy as np
from metaflow import FlowSpec, catch, checkpoint, current, retry, step, user_step_decorator
from telling import error_of, tell


@user_step_decorator
def saving_afterwards(step_name, flow, inputs=None, attributes=None):
    yield
    current.checkpoint.save("after the step", wait=False)


class WaysOutFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.interrupted)

    @checkpoint(background=True)
    @retry(times=2, minutes_between_retries=0)
    @saving_afterwards
    @step
    def interrupted(self):
        tell(
            **{f"interrupted{current.retry_count}": current.checkpoint.info and current.checkpoint.info.name}
        )
        self.payload = np.random.default_rng(1).random(200_000)
        if current.retry_count == 0:
            tell(pending=current.checkpoint.save("before exit").is_pending)
            sys.exit(3)
        if current.retry_count == 1:
            current.checkpoint.save("before interrupt")
            raise KeyboardInterrupt
        self.interrupted_task = current.pathspec
        self.next(self.caught)

    @catch(var="failure", print_exception=False)
    @retry(times=1, minutes_between_retries=0)
    @checkpoint
    @step
    def caught(self):
        tell(afterwards=[artifact.name for artifact in current.checkpoint.list(task=self.interrupted_task)])
        tell(caught=[current.retry_count, current.checkpoint.is_loaded])
        self.progress = current.retry_count
        current.checkpoint.save(wait=False)
        raise ValueError("always fails")
        self.next(self.full)

    @retry(times=1, minutes_between_retries=0)
    @checkpoint
    @step
    def full(self):
        tell(**{f"full{current.retry_count}": current.checkpoint.info and current.checkpoint.info.name})
        self.payload = 1
        if current.retry_count == 0:
            current.checkpoint.save("fits")
            limit = resource.getrlimit(resource.RLIMIT_FSIZE)
            self.payload = np.random.default_rng(0).random(500_000)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limit[1]))
            artifact = current.checkpoint.save("too large", wait=False)
            tell(raised_when_waited=error_of(artifact.wait))
            tell(raised_when_used=error_of(lambda: artifact.size))
            tell(repr=repr(artifact))
            current.checkpoint.save("too large again", wait=False)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    WaysOutFlow()
