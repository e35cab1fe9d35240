"""The contestants by name. `ours`, the first, is what ratios are taken against; so is `s3-ours` on S3."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from bench.systems.array_formats import Orbax, Zarr
from bench.systems.base import Extra, System, SystemSpec, Unavailable
from bench.systems.files import Pickle, TorchSave
from bench.systems.flat import Flat, Format
from bench.systems.flushed import Flushed
from bench.systems.incumbent import PACKAGE, Incumbent, IncumbentPackage
from bench.systems.limits import DiskLimit, Hashing, MemoryCopy
from bench.systems.ours import Ours
from bench.systems.remote import S3Files, S3Ours
from bench.systems.torch_formats import DistributedCheckpoint, Safetensors, TorchSnapshot

__all__ = ["SYSTEMS", "Extra", "System", "SystemSpec", "Unavailable"]

OURS_CAN: tuple[Extra, ...] = ("into", "inplace", "inspect", "one")


def _ours(name: str, about: str, **arguments: Any) -> SystemSpec:
    return SystemSpec(
        name,
        f"CheckpointStore, {about}",
        partial(Ours, **arguments),
        durable=arguments.get("durability") != "os",
        verified=True,
        background=arguments.get("background", False),
        extras=OURS_CAN,
    )


def _with_fsync(spec: SystemSpec) -> tuple[SystemSpec, SystemSpec]:
    """The peer as it is, which flushes nothing, and the same with what it lacks."""
    return spec, SystemSpec(
        f"{spec.name}-fsync",
        f"{spec.about} + fsync",
        partial(Flushed, make=spec.make),
        durable=True,
        needs=spec.needs,
        torch_only=spec.torch_only,
        tensors_only=spec.tensors_only,
        background=spec.background,
    )


def _flat(
    name: str,
    about: str,
    make: Callable[[], Format],
    *needs: str,
    durable: bool = False,
    background: bool = False,
    torch_only: bool = True,
    extras: tuple[Extra, ...] = (),
) -> SystemSpec:
    return SystemSpec(
        name,
        about,
        partial(Flat, make=make),
        durable=durable,
        needs=needs,
        torch_only=torch_only,
        tensors_only=True,
        background=background,
        extras=extras,
    )


def _on_s3(name: str, about: str, client: str, *needs: str, torch_only: bool = False) -> SystemSpec:
    return SystemSpec(
        name,
        about,
        partial(S3Files, client=client, use_torch=torch_only),
        durable=True,
        needs=("boto3", *needs, *(("torch",) if torch_only else ())),
        torch_only=torch_only,
        on_s3=True,
    )


def _ours_on_s3(name: str, about: str, **arguments: Any) -> SystemSpec:
    return SystemSpec(
        name,
        f"CheckpointStore, {about}",
        partial(S3Ours, **arguments),
        durable=True,
        verified=True,
        needs=("aiobotocore", "boto3"),
        on_s3=True,
        background=arguments.get("background", False),
        extras=OURS_CAN,
    )


_LOCAL = (
    _ours("ours", "as it is by default"),
    _ours("ours-background", "wait=False", background=True),
    _ours("ours-reserved", "wait=False, its memory reserved before", background=True, reserve=True),
    _ours("ours-planes", "codec='planes'", codec="planes"),
    _ours("ours-planes-background", "codec='planes', wait=False", codec="planes", background=True),
    _ours("ours-raw", "codec='raw'", codec="raw"),
    _ours("ours-raw-background", "codec='raw', wait=False", codec="raw", background=True),
    _ours("ours-os", "durability='os'", durability="os"),
    _ours("ours-raw-os", "codec='raw', durability='os'", codec="raw", durability="os"),
    *_with_fsync(
        SystemSpec(
            "torch",
            "torch.save / load, and copy_ into what is there",
            TorchSave,
            needs=("torch",),
            torch_only=True,
            extras=("into",),
        )
    ),
    SystemSpec(
        "torch-mmap",
        "torch.save / load(mmap=True), which reads when it is touched",
        partial(TorchSave, mmap=True),
        needs=("torch",),
        torch_only=True,
        extras=("into", "one"),
    ),
    *_with_fsync(SystemSpec("pickle", "pickle 5 to a file", Pickle)),
    *_with_fsync(
        _flat(
            "safetensors",
            "save_file / load_file, which maps, and a pickle of the rest",
            Safetensors,
            "safetensors",
            torch_only=False,
            extras=("inspect", "one"),
        )
    ),
    _flat(
        "dcp",
        "torch.distributed.checkpoint save, it fsyncs",
        DistributedCheckpoint,
        "torch",
        durable=True,
        extras=("into",),
    ),
    _flat(
        "dcp-async",
        "torch.distributed.checkpoint async_save, it fsyncs",
        partial(DistributedCheckpoint, background=True),
        "torch",
        durable=True,
        background=True,
    ),
    *_with_fsync(
        _flat("torchsnapshot", "Snapshot.take", TorchSnapshot, "torch", "torchsnapshot", extras=("into",))
    ),
    _flat(
        "torchsnapshot-async",
        "Snapshot.async_take",
        partial(TorchSnapshot, background=True),
        "torch",
        "torchsnapshot",
        background=True,
    ),
    *_with_fsync(
        _flat(
            "orbax",
            "StandardCheckpointer, which saves in the background",
            Orbax,
            "jax",
            "orbax.checkpoint",
            background=True,
            torch_only=False,
        )
    ),
    _flat("zarr", "a group of arrays, its defaults", Zarr, "zarr", torch_only=False),
    *_with_fsync(SystemSpec("incumbent", "metaflow-checkpoint's implicit mode, re-enacted", Incumbent)),
    *_with_fsync(
        SystemSpec(
            "incumbent-package",
            "the package metaflow-checkpoint, given the files of the implicit mode",
            IncumbentPackage,
            needs=("metaflow", PACKAGE),
        )
    ),
    SystemSpec("copy", "the bytes into warm memory", MemoryCopy, loads=False, reference=True),
    SystemSpec("hash", "BLAKE3 of the bytes, all cores", Hashing, loads=False, reference=True),
    SystemSpec("disk", "plain write + fdatasync; plain read", DiskLimit, durable=True, reference=True),
)
_REMOTE = (
    _ours_on_s3("s3-ours", "as it is by default"),
    _ours_on_s3("s3-ours-background", "wait=False", background=True),
    _ours_on_s3("s3-ours-raw", "codec='raw'", codec="raw"),
    _on_s3("s3-torch-boto3", "torch.save to a file, boto3's upload_file", "boto3", torch_only=True),
    _on_s3("s3-torch-s5cmd", "torch.save to a file, s5cmd cp", "s5cmd", torch_only=True),
    _on_s3("s3-torch-obstore", "torch.save to a file, obstore.put", "obstore", "obstore", torch_only=True),
    _on_s3("s3-pickle-boto3", "pickle 5 to a file, boto3's upload_file", "boto3"),
    _on_s3("s3-pickle-metaflow", "pickle 5 to a file, Metaflow's put_files", "metaflow", "metaflow"),
)
SYSTEMS: Mapping[str, SystemSpec] = {spec.name: spec for spec in (*_LOCAL, *_REMOTE)}
