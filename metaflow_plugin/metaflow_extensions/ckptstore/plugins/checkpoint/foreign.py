"""References of the package metaflow-checkpoint: told from ours, so that the error says how to read them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .errors import CheckpointArgumentError

__all__ = ["refuse_foreign"]

# Their keys name the kind of the object, the kind of the record and then where it belongs.
_KEY = re.compile(r"(?:.*/)?(?P<kind>checkpoints|models)/(?:artifacts|artifact_metadata|metadata)/.+")
_OUR_PIN = re.compile(r"@[0-9a-f]{64}$")
_PACKAGE = "metaflow_extensions.obcheckpoint."


def refuse_foreign(reference: object) -> None:
    """Raise CheckpointArgumentError if this is a checkpoint or model of metaflow-checkpoint.

    ``reference`` is anything that may have been meant as one of ours: an
    object, a dict or a key. What is not theirs passes, whatever it is.
    """
    if type(reference).__module__.startswith(_PACKAGE):
        values: dict[str, Any] = getattr(reference, "to_dict", dict)()
        raise _refusal(str(values.get("type", "object")), values)
    if isinstance(reference, Mapping) and "ref" not in reference:
        key = reference.get("key")
        kind = "model" if "model_uuid" in reference else "checkpoint"
        if kind == "model" or (isinstance(key, str) and _KEY.fullmatch(key)):
            raise _refusal(kind, reference)
    if (
        isinstance(reference, str)
        and (found := _KEY.fullmatch(reference)) is not None
        and _OUR_PIN.search(reference) is None
    ):
        raise _refusal(found["kind"].removesuffix("s"), {"key": reference})


def _refusal(kind: str, values: Mapping[str, Any]) -> CheckpointArgumentError:
    named = values.get("name") or values.get("key") or values.get("model_uuid")
    where = f" of {values['pathspec']}" if values.get("pathspec") else ""
    return CheckpointArgumentError(
        f"this is a {kind} of the package metaflow-checkpoint ({named!r}{where}), which @checkpoint of "
        "ckptstore neither wrote nor reads. Where that package is installed too, its files are had by: "
        "from metaflow import load_model; load_model(reference, 'a directory')."
    )
