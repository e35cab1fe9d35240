"""The packages that a checkpointed step needs, and how it gets them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .errors import CheckpointException

__all__ = ["ON_DISK", "add_requirements", "check_installed"]

ON_DISK = frozenset({"local", "spin"})
"""The kinds of datastore that are folders of the machine."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """A package by its names; ``datastores``: only needed on these."""

    module: str
    version: str
    conda: str
    datastores: frozenset[str] | None = None


_S3 = frozenset({"s3"})
_NEEDED = (
    Requirement("blake3", ">=1.0", "blake3"),
    Requirement("msgpack", ">=1.0.5", "msgpack-python"),
    Requirement("zstandard", ">=0.22", "zstandard"),
    Requirement("aiofiles", ">=23.2", "aiofiles", ON_DISK),
)
_FASTER = Requirement("aiobotocore", ">=2.21", "aiobotocore", _S3)
# It pins botocore narrowly: beside a pin of the user's there may be no solution.
_RIVALS = frozenset({"boto3", "botocore"})


def check_installed(step_name: str, datastore_type: str) -> None:
    """Raise CheckpointException if a package is missing that checkpoints cannot do without."""
    missing = [one.module for one in _for(datastore_type) if importlib.util.find_spec(one.module) is None]
    if missing:
        names = " ".join(missing)
        raise CheckpointException(
            f"@checkpoint on step {step_name!r} needs what is not installed where it runs: "
            f"{', '.join(missing)}. Put this line into its image: python -m pip install {names} (or run "
            "the flow with --environment=pypi and @pypi on the step: they are added to it)."
        )


def add_requirements(decorators: Iterable[Any], flow: Any, datastore_type: str) -> None:
    """Add what checkpoints need to the packages of a step's @pypi or @conda.

    What the user names there, or in @pypi_base or @conda_base, stays as it is.
    Idempotent, and independent of the order in which decorators are prepared.
    """
    found = {decorator.name: decorator for decorator in decorators}
    kind = "pypi" if "pypi" in found else "conda"
    decorator = found.get(kind)
    if decorator is None or str(decorator.attributes.get("disabled")).lower() == "true":
        return
    given = dict(decorator.attributes.get("packages") or {})
    named = {_plain(name) for name in given}
    for base in flow._flow_decorators.get(f"{kind}_base", ()):
        named.update(_plain(name) for name in base.attributes.get("packages") or {})
    wanted = list(_for(datastore_type))
    if datastore_type in _S3 and not named & _RIVALS:
        wanted.append(_FASTER)
    for one in wanted:
        if not named & {one.module, one.conda}:
            given[one.module if kind == "pypi" else one.conda] = one.version
    decorator.attributes["packages"] = given


def _for(datastore_type: str) -> Iterable[Requirement]:
    return (one for one in _NEEDED if one.datastores is None or datastore_type in one.datastores)


def _plain(name: str) -> str:
    """Return a package's name without channel, extras and spelling."""
    return name.rpartition("::")[2].partition("[")[0].strip().lower().replace("_", "-")
