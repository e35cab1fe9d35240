"""A step with a loop in a loop, whose process kills itself at random in each attempt but the last."""

import os
import random
import signal
import threading
import time

import numpy as np
from metaflow import FlowSpec, Parameter, checkpoint, current, retry, step
from telling import tell

N_EPOCHS, N_BATCHES, LAST_ATTEMPT = 5, 12, 4


def kill_soon(seed, done):
    chance = random.Random(f"{seed}/{current.retry_count}")
    n_done, delay_s = chance.randrange(1, 25), chance.uniform(0, 0.008)

    def kill():
        while len(done) < n_done:
            time.sleep(0.001)
        time.sleep(delay_s)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()


class KilledLoopsFlow(FlowSpec):
    seed = Parameter("seed", default=0)

    @retry(times=LAST_ATTEMPT, minutes_between_retries=0)
    @checkpoint(show_card=False)
    @step
    def start(self):
        done = []
        self.model, self.sums = np.zeros(50_000), []
        if current.retry_count < LAST_ATTEMPT:
            kill_soon(self.seed, done)
        for self.epoch in current.checkpoint.loop(range(N_EPOCHS), every=2):
            self.sum = 0.0
            for self.batch in current.checkpoint.loop(range(N_BATCHES), every=3):
                if not done:
                    tell(**{f"began{current.retry_count}": [self.epoch, self.batch]})
                self.model *= 1.0001
                time.sleep(0.004)  # the moments in which it is half done
                self.model += self.epoch * N_BATCHES + self.batch
                self.sum += float(self.model[0])
                done.append((self.epoch, self.batch))
            self.sums.append(self.sum)
        self.next(self.end)

    @step
    def end(self):
        tell(sums=self.sums, first=float(self.model[0]), last=float(self.model[-1]))


if __name__ == "__main__":
    KilledLoopsFlow()
