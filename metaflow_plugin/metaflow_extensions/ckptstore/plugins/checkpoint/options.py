"""The decorator's arguments, checked before a run starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ckptstore import Keep
from ckptstore.errors import InvalidPolicyError

from .defaults import DEFAULTS
from .errors import CheckpointArgumentError
from .starting.policies import policy_text

__all__ = ["DEFAULTS", "Options", "parse_options"]


@dataclass(frozen=True, slots=True)
class Options:
    """The arguments of one ``@checkpoint``, all of them valid."""

    load_policy: str
    """See ``policies.parse_policy``."""
    include: tuple[str, ...] | None
    exclude: tuple[str, ...]
    background: bool
    temp_dir_root: str | None = None
    show_card: bool = True
    keep: Keep | None = None
    on_preemption: str = "finish"
    sigterm: bool = False


def parse_options(attributes: Mapping[str, Any]) -> Options:
    """Return the options that a decorator's attributes mean.

    Metaflow hands the arguments of ``--with checkpoint:...`` on as text, so a
    flag may arrive as "True" or "False". Raises CheckpointArgumentError.
    """
    # What a mutator adds to a decorator that it names by a text, Metaflow does not check.
    unknown = sorted(set(attributes) - set(DEFAULTS))
    if unknown:
        raise CheckpointArgumentError(
            f"@checkpoint has no argument {', '.join(unknown)}; it has {', '.join(DEFAULTS)}."
        )
    policy = policy_text(attributes["load_policy"])
    include = _names("include", attributes["include"])
    exclude = _names("exclude", attributes["exclude"])
    if include is not None and exclude is not None:
        raise CheckpointArgumentError(
            "include and exclude are mutually exclusive: include names all that is saved, "
            "exclude what is left out of everything. Give one of them."
        )
    temp_dir_root = attributes["temp_dir_root"]
    if temp_dir_root is not None and (not isinstance(temp_dir_root, str) or not temp_dir_root):
        raise CheckpointArgumentError(
            f"temp_dir_root must be the path of a folder, not {temp_dir_root!r}: "
            "current.checkpoint.directory is made in it."
        )
    return Options(
        policy,
        include,
        exclude or (),
        background=_flag("background", attributes["background"]),
        temp_dir_root=temp_dir_root,
        show_card=_flag("show_card", attributes["show_card"]),
        keep=_keep(attributes["keep"]),
        on_preemption=_on_preemption(attributes["on_preemption"]),
        sigterm=_flag("sigterm", attributes["sigterm"]),
    )


def _keep(value: object) -> Keep | None:
    if value is None or isinstance(value, Keep):
        return value
    if not isinstance(value, str):
        raise CheckpointArgumentError(
            "keep must be a retention policy, such as last(3) | best('val_loss', 2) from ckptstore, or its text, "
            f"not {value!r}."
        )
    try:
        return Keep.parse(value)
    except InvalidPolicyError as error:
        raise CheckpointArgumentError(f"keep={value!r}: {error}") from error


def _on_preemption(value: object) -> str:
    if value not in ("finish", "save"):
        raise CheckpointArgumentError(
            "on_preemption must be 'finish' (what is being saved) or 'save' (also the last "
            f"current.checkpoint.mark()), not {value!r}."
        )
    return str(value)


def _names(option: str, value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise CheckpointArgumentError(
            f"{option} must be a list of attribute names, such as {option}=['model', 'epoch'], not {value!r}. "
            f'On the command line it is JSON: --with \'checkpoint:{option}=["model", "epoch"]\'.'
        )
    if not value:
        hint = (
            "leave include out to save every attribute"
            if option == "include"
            else "leave exclude out to exclude nothing"
        )
        raise CheckpointArgumentError(f"{option}=[] names nothing: {hint}.")
    for name in value:
        if not isinstance(name, str) or not name.isidentifier():
            raise CheckpointArgumentError(f"{option} must hold names of attributes; {name!r} is none.")
    return tuple(sorted(set(value)))


def _flag(option: str, value: object) -> bool:
    if value is None or value is False or value in ("False", "false"):
        return False
    if value is True or value in ("True", "true"):
        return True
    raise CheckpointArgumentError(f"{option} must be True or False, not {value!r}.")
