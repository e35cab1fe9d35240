"""Steps whose machine goes away: by a signal in the middle of a background save, and by a notice."""

import os
import signal
import threading
import time

import numpy as np
from metaflow import FlowSpec, checkpoint, current, retry, step
from telling import tell

NOTICE = os.environ.get("TOLD", "") + ".notice"
if "TOLD" in os.environ:  # not where the flow is only looked at
    # As Metaflow's decorators for Kubernetes and AWS Batch do in a task.
    current._update_env({"spot_termination_notice": NOTICE})


class PreemptedFlow(FlowSpec):
    @retry(times=2, minutes_between_retries=0)
    @checkpoint(sigterm=True, on_preemption="save", show_card=False)
    @step
    def start(self):
        found = current.checkpoint.info
        tell(**{f"found{current.retry_count}": found and found.name})
        self.parts = [0, 0]
        self.payload = np.random.default_rng(1).random(4_000_000)
        if current.retry_count < 2:
            pending = current.checkpoint.save("in flight", wait=False)
            if current.retry_count == 1:
                self.parts = [1, 1]
                current.checkpoint.mark("marked")
                self.parts[0] = 2  # and not the other
            tell(**{f"pending{current.retry_count}": pending.is_pending})
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
            tell(survived=True)
        current.checkpoint.load()
        tell(parts=self.parts)
        self.next(self.unasked)

    @checkpoint(show_card=False)
    @step
    def unasked(self):
        tell(
            handler=signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
            descriptor=signal.set_wakeup_fd(-1),
            preempted=current.checkpoint.preempted,
        )
        self.next(self.noticed)

    @retry(times=1, minutes_between_retries=0)
    @checkpoint(show_card=False)
    @step
    def noticed(self):
        self.done = []
        for self.epoch in current.checkpoint.loop(range(4), every="1 h"):
            self.done.append(self.epoch)
            if current.retry_count == 0 and self.epoch == 1:
                open(NOTICE, "w").close()
                while not current.checkpoint.preempted:
                    time.sleep(0.01)
            if current.retry_count == 0 and self.epoch == 2:
                os.kill(os.getpid(), signal.SIGKILL)
        if current.retry_count == 1:
            tell(done=self.done, watcher=[one.name for one in threading.enumerate()])
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    PreemptedFlow()
