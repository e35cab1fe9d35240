"""@checkpoint in every order with @catch and @timeout, @retry anywhere: each step is timed out in three ways."""

import threading

from holding import alarm_in_the_middle_of_a_save
from metaflow import FlowSpec, catch, checkpoint, current, environment, resources, retry, step, timeout
from telling import tell

catching = catch(var="failure", print_exception=False)
retrying = retry(times=2, minutes_between_retries=0)
limited = timeout(hours=1)


def go_on_for_ever():
    threading.Event().wait()


class OrdersFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.a, self.b, self.c, self.d, self.e, self.f)

    @checkpoint
    @catching
    @limited
    @retrying
    @step
    def a(self):
        self.interrupted_again_and_again()
        self.next(self.join)

    @retrying
    @checkpoint
    @limited
    @catching
    @step
    def b(self):
        self.interrupted_again_and_again()
        self.next(self.join)

    @catching
    @checkpoint
    @retrying
    @limited
    @step
    def c(self):
        self.interrupted_again_and_again()
        self.next(self.join)

    @limited
    @retrying
    @checkpoint
    @catching
    @step
    def d(self):
        self.interrupted_again_and_again()
        self.next(self.join)

    @catching
    @limited
    @retrying
    @checkpoint
    @resources(memory=512)
    @step
    def e(self):
        self.interrupted_again_and_again()
        self.next(self.join)

    @environment(vars={"BESIDE": "1"})
    @limited
    @catching
    @checkpoint
    @retrying
    @step
    def f(self):
        self.interrupted_again_and_again()
        self.next(self.join)

    def interrupted_again_and_again(self):
        checkpoints, attempt = current.checkpoint, current.retry_count
        info = checkpoints.info
        tell(**{f"{current.step_name}{attempt}": info and [info.name, info.attempt]})
        self.task = current.pathspec
        if checkpoints.is_loaded:
            checkpoints.load()
            tell(**{f"{current.step_name}{attempt} state": [self.epoch, len(self.payload)]})
        else:
            self.payload = list(range(1000))
        self.epoch = attempt
        if attempt == 0:
            checkpoints.save("first")
            alarm_in_the_middle_of_a_save(inside="go_on_for_ever")
            checkpoints.save("in flight", wait=False)
            self.epoch = -1
            go_on_for_ever()
        elif attempt == 1:
            alarm_in_the_middle_of_a_save(inside="save")
            checkpoints.save("blocking")
        else:
            alarm_in_the_middle_of_a_save(inside="settle")
            self.kept = checkpoints.save("at the end", wait=False)
            self.epoch = -1

    @checkpoint(load_policy="none")
    @step
    def join(self, inputs):
        for branch in inputs:
            name = branch.task.split("/")[2]
            found = current.checkpoint.list(task=branch.task)
            current.checkpoint.load(branch.kept)
            tell(
                **{
                    f"{name} names": [artifact.name for artifact in found],
                    f"{name} kept": [branch.kept == found[0], self.epoch],
                    f"{name} caught": "TimeoutException: Step" in str(branch.failure),
                }
            )
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    OrdersFlow()
