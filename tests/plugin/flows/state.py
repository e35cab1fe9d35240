"""What counts as a flow's state, how it is narrowed, and that a load is all or nothing."""

import functools
import os
import threading
from pathlib import Path

import numpy as np
from metaflow import FlowSpec, Parameter, checkpoint, current, step
from telling import error_of, tell


class Box:
    def __init__(self, content):
        self.content = content


class StateFlow(FlowSpec):
    alpha = Parameter("alpha", default=3)
    constant = 4
    _default = 5

    @checkpoint
    @step
    def start(self):
        tell(nothing=error_of(current.checkpoint.save))
        self.inherited = [1, 2, 3]
        self.unused = "unused"
        self._private = "private"
        self.foreign = current.checkpoint.save("foreign")
        self.next(self.kinds)

    @checkpoint
    @step
    def kinds(self):
        self.partial = functools.partial(pow, 2)
        self.a_class, self.builtin = Box, len
        self.function = lambda: 1
        self.method = self.kinds
        self._private = "changed"
        self._default = 6
        shared = np.zeros(3)
        self.first, self.second = {"shared": shared}, Box(shared)
        saved = current.checkpoint.save()
        fields = current.checkpoint.inspect(saved)["fields"]
        untouched = "inherited" not in vars(self)
        for name in ("partial", "a_class", "builtin", "first", "second"):
            delattr(self, name)
        self._private = self._default = None
        current.checkpoint.load(saved)
        self.first["shared"][0] = 7
        tell(
            kinds=sorted(fields),
            untouched=untouched,
            restored=[self.partial(5), self.a_class is Box, self.builtin([1]), self._private, self._default],
            shared=float(self.second.content[0]),
            name=self.name,
        )
        current.checkpoint.load(saved)
        tell(not_the_store=float(self.first["shared"][0]))
        del self.partial, self.a_class, self.builtin, self.method, self.function
        self.next(self.narrow)

    @checkpoint(include=["inherited", "epoch"])
    @step
    def narrow(self):
        tell(missing=error_of(current.checkpoint.save))
        self.epoch, self.other = 1, "other"
        saved = current.checkpoint.save()
        self.epoch, self.other, self.inherited = 2, "kept", None
        current.checkpoint.load(saved)
        tell(
            included=[
                self.epoch,
                self.other,
                self.inherited,
                sorted(current.checkpoint.inspect(saved)["fields"]),
            ]
        )
        self.epoch = lambda: 1
        tell(included_function=error_of(current.checkpoint.save))
        self.epoch = 1
        self.next(self.without)

    @checkpoint(exclude=["unused", "inherited", "first", "second"])
    @step
    def without(self):
        saved = current.checkpoint.save()
        tell(excluded=sorted(current.checkpoint.inspect(saved)["fields"]))
        self.next(self.refuse)

    @checkpoint(exclude=["first", "second"])
    @step
    def refuse(self):
        self.deep = {"x": [0, {"y": threading.Lock()}]}
        before = len(current.checkpoint.list())
        tell(unserializable=error_of(current.checkpoint.save))
        tell(unserializable_in_background=error_of(current.checkpoint.save, wait=False))
        tell(saved_none=len(current.checkpoint.list()) == before)
        del self.deep
        for arguments in ({"name": ""}, {"name": 5}, {"metadata": [1]}, {"latest": 1}, {"wait": "no"}):
            tell(**{f"wrong {arguments}": error_of(current.checkpoint.save, **arguments)})
        tell(unknown=error_of(current.checkpoint.save, folder="x"))

        self.epoch, self.big = 1, np.random.default_rng(0).integers(0, 256, 3 << 20, dtype=np.uint8)
        saved = current.checkpoint.save()
        self.epoch, self.big = 2, None
        with flipped_chunks():
            tell(
                corrupt=error_of(current.checkpoint.load, saved), after_corrupt=[self.epoch, self.big is None]
            )
        current.checkpoint.load(saved)
        tell(after_repair=[self.epoch, int(self.big.size)])
        del self.big
        self.next(self.end)

    @checkpoint
    @step
    def end(self):
        current.checkpoint.load(self.foreign)
        tell(foreign=[self.name, self.inherited])


class flipped_chunks:
    """Flip one bit in the middle of every chunk of the store, and flip it back."""

    def __init__(self):
        folder = Path(os.environ["METAFLOW_DATASTORE_SYSROOT_LOCAL"], ".metaflow", "mf.ckptstore", "chunks")
        self.paths = [path for path in folder.rglob("*") if path.is_file()]

    def __enter__(self):
        assert self.paths
        for path in self.paths:
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.chmod(0o600)
            path.write_bytes(content)

    def __exit__(self, *error):
        self.__enter__()


if __name__ == "__main__":
    StateFlow()
