"""A process that a step starts; it knows of its task by what it inherits."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from metaflow import Checkpoint
from telling import error_of, tell

what, argument = sys.argv[1:3]


class Model:
    def __init__(self):
        self.number, self.by, self.weights = int(argument), "child", np.arange(10.0)


if what == "save":
    with Checkpoint() as client:
        newest = client.list()[0]
        before = client.load(newest)
        Path(client.directory, "child.txt").write_text("of the child")
        saved = client.save(Model(), {"loss": 0.5}, name="child", wait=False)
        saved.wait()
        tell(child=[newest.name, before["number"], saved.attempt, sorted(client.inspect(saved)["files"])])
    tell(unsaved=error_of(Checkpoint().save, {"deep": [1, {"x": open(__file__)}]}))  # noqa: SIM115
    tell(nothing=error_of(Checkpoint().save), no_name=error_of(Checkpoint().save, {"1": 2}))
elif what == "end without closing":
    unclosed = Checkpoint()
    unclosed.save({"number": int(argument)}, name="unclosed", wait=False)
elif what == "together":
    others = [subprocess.Popen([sys.executable, __file__, "many", str(number)]) for number in range(2)]
    tell(together=[other.wait() for other in others])
elif what == "many":
    client = Checkpoint()
    for number in range(3):
        mine = client.save({"number": number}, name=f"together {argument}", wait=bool(number % 2))
        order = [one.ref for one in client.list() if one.name == mine.name]
        assert order[0] == mine.ref, number
else:
    found = Checkpoint().list(task=argument)
    tell(running=[len(found), found[0].implicit_manifest["version"], error_of(Checkpoint().list)])
