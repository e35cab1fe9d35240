"""The contestants by name. `ours`, the first, is what ratios are taken against."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from bench.systems.base import System, SystemSpec
from bench.systems.files import Pickle, TorchSave
from bench.systems.incumbent import Incumbent
from bench.systems.limits import DiskLimit, MemoryCopy
from bench.systems.ours import Ours

__all__ = ["SYSTEMS", "System", "SystemSpec"]

SYSTEMS: Mapping[str, SystemSpec] = {
    spec.name: spec
    for spec in (
        SystemSpec("ours", "wait=True, durable, byte planes", Ours, durable=True, verified=True),
        SystemSpec(
            "ours-background",
            "wait=False, durable, byte planes",
            partial(Ours, background=True),
            durable=True,
            verified=True,
        ),
        SystemSpec(
            "ours-raw", "wait=True, durable, raw", partial(Ours, codec="raw"), durable=True, verified=True
        ),
        SystemSpec(
            "ours-raw-background",
            "wait=False, durable, raw",
            partial(Ours, background=True, codec="raw"),
            durable=True,
            verified=True,
        ),
        SystemSpec(
            "ours-os",
            "wait=True, page cache, byte planes",
            partial(Ours, durability="os"),
            durable=False,
            verified=True,
        ),
        SystemSpec(
            "ours-raw-os",
            "wait=True, page cache, raw",
            partial(Ours, codec="raw", durability="os"),
            durable=False,
            verified=True,
        ),
        SystemSpec(
            "torch",
            "torch.save / load, page cache",
            TorchSave,
            durable=False,
            needs=("torch",),
            torch_only=True,
        ),
        SystemSpec(
            "torch-fsync",
            "torch.save + fsync",
            partial(TorchSave, flush=True),
            durable=True,
            needs=("torch",),
            torch_only=True,
        ),
        SystemSpec("pickle", "pickle 5 to a file, page cache", Pickle, durable=False),
        SystemSpec("pickle-fsync", "pickle 5 to a file + fsync", partial(Pickle, flush=True), durable=True),
        SystemSpec("incumbent", "metaflow-checkpoint's implicit mode, page cache", Incumbent, durable=False),
        SystemSpec(
            "incumbent-fsync",
            "the same + fsync of the datastore",
            partial(Incumbent, flush=True),
            durable=True,
        ),
        SystemSpec(
            "copy", "the bytes into warm memory", MemoryCopy, durable=False, loads=False, reference=True
        ),
        SystemSpec("disk", "plain write + fdatasync; plain read", DiskLimit, durable=True, reference=True),
    )
}
