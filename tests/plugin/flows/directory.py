"""Files in current.checkpoint.directory, over every way that an attempt ends."""

import os
import signal
import sys

from metaflow import FlowSpec, checkpoint, current, retry, step, user_step_decorator
from telling import tell


@user_step_decorator
def saving_afterwards(step_name, flow, inputs=None, attributes=None):
    yield
    write("after the step")
    current.checkpoint.save("after the step")


def state():
    return os.path.join(current.checkpoint.directory, "sub", "state")


def write(content):
    # In place, and long enough for a chunk of its own.
    with open(state(), "w") as file:
        file.write(content.ljust(10_000))


def read():
    with open(state()) as file:
        return file.read().strip()


class DirectoryFlow(FlowSpec):
    @saving_afterwards
    @retry(times=4, minutes_between_retries=0)
    @checkpoint(temp_dir_root=os.environ["TEMP_DIR_ROOT"])
    @step
    def start(self):
        attempt = current.retry_count
        if attempt == 0:
            os.mkdir(os.path.dirname(state()))
            write("waited for")
            tell(fields=list(current.checkpoint.inspect(current.checkpoint.save("first"))["fields"]))
            write("never saved")
        else:
            # The released recipes read at once, without load().
            assert current.checkpoint.is_loaded
            tell(**{f"state{attempt}": read()})
        tell(**{f"directory{attempt}": current.checkpoint.directory})
        if attempt == 0:
            raise ValueError("attempt 0 ends")
        if attempt == 1:
            write("background")
            current.checkpoint.save("second", wait=False)
            write("overwritten at once")
            sys.exit(3)
        if attempt == 2:
            write("interrupted")
            current.checkpoint.save("third")
            raise KeyboardInterrupt
        if attempt == 3:
            write("killed")
            current.checkpoint.save("fourth")
            os.kill(os.getpid(), signal.SIGKILL)
        self.saved_by = current.pathspec
        self.next(self.other)

    @checkpoint
    @step
    def other(self):
        with open(os.path.join(current.checkpoint.directory, "mine"), "w"):
            pass
        each = []
        for saved in current.checkpoint.list(task=self.saved_by):
            current.checkpoint.load(saved)
            each.append([saved.name, read(), os.listdir(current.checkpoint.directory)])
        tell(each=each, directory_of_other=current.checkpoint.directory)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    DirectoryFlow()
