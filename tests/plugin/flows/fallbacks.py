"""Steps whose body is not what runs in the end: @catch's fallback, and users' own step decorators."""

import os
import sys

from metaflow import (
    USER_SKIP_STEP,
    FlowSpec,
    Step,
    UserStepDecorator,
    catch,
    checkpoint,
    current,
    retry,
    step,
    user_step_decorator,
)
from telling import tell


@user_step_decorator
def resuming(step_name, flow, inputs=None, attributes=None):
    """Load what there is before the step, and save what it made after it."""
    if current.checkpoint.is_loaded:
        current.checkpoint.load()
    yield
    current.checkpoint.save("after the step", wait=False)


@user_step_decorator
def replacing(step_name, flow, inputs=None, attributes=None):
    def other_body(self, inputs=None):
        tell(**{f"replaced{current.retry_count}": current.checkpoint.info and current.checkpoint.info.name})
        self.body = "another"
        current.checkpoint.save("by another body", wait=False)
        if current.retry_count == 0:
            sys.exit(3)
        return True  # Metaflow calls self.next() as the step would

    yield other_body


@user_step_decorator
def skipping(step_name, flow, inputs=None, attributes=None):
    tell(skipped=[current.checkpoint.is_loaded, len(current.checkpoint.list())])
    yield USER_SKIP_STEP


class Swallowing(UserStepDecorator):
    def post_step(self, step_name, flow, exception=None):
        tell(swallowed=[type(exception).__name__, current.checkpoint.list()[0].name])
        return None, {}


class FallbacksFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.inside, self.outside, self.resumed, self.replaced, self.skipped, self.swallowed)

    @catch(var="failure", print_exception=False)
    @retry(times=1, minutes_between_retries=0)
    @checkpoint
    @step
    def inside(self):
        self.gone()
        self.next(self.join)

    @checkpoint(background=True)
    @retry(times=1, minutes_between_retries=0)
    @catch(var="failure", print_exception=False)
    @step
    def outside(self):
        self.gone()
        self.next(self.join)

    def gone(self):
        self.epoch = current.retry_count
        current.checkpoint.save(f"attempt {current.retry_count}", wait=True)
        os._exit(9)

    @checkpoint
    @retry(times=1, minutes_between_retries=0)
    @resuming
    @step
    def resumed(self):
        self.epoch = getattr(self, "epoch", 0) + 1
        current.checkpoint.save("in the step")
        if current.retry_count == 0:
            raise RuntimeError("dies")
        self.task = current.pathspec
        self.next(self.join)

    @retry(times=1, minutes_between_retries=0)
    @replacing
    @checkpoint
    @step
    def replaced(self):
        raise AssertionError("another body runs in the place of this one")
        self.next(self.join)

    @skipping
    @checkpoint
    @step
    def skipped(self):
        raise AssertionError("this step is skipped")
        self.next(self.join)

    @Swallowing
    @checkpoint(background=True)
    @step
    def swallowed(self):
        self.epoch = 7
        current.checkpoint.save("before the error")
        raise ValueError("the decorator above swallows it")
        self.next(self.join)

    @checkpoint
    @step
    def join(self, inputs):
        tell(
            inside_caught="kept failing over 2 attempts" in str(inputs.inside.failure),
            outside_caught="kept failing over 2 attempts" in str(inputs.outside.failure),
            resumed=[inputs.resumed.epoch, names(inputs.resumed.task)],
            body=inputs.replaced.body,
            swallowed_epoch=inputs.swallowed.epoch,
        )
        for name in ("inside", "outside"):
            tell(**{f"{name} names": names(Step(f"FallbacksFlow/{current.run_id}/{name}").task)})
        self.next(self.end)

    @step
    def end(self):
        pass


def names(task):
    return [artifact.name for artifact in current.checkpoint.list(task=task)]


if __name__ == "__main__":
    FallbacksFlow()
