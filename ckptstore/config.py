"""How a store behaves: options with their units in the names, checked when they are made."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from ckptstore._capacity import usable_cores, usable_memory_bytes
from ckptstore.errors import ConfigError

__all__ = ["KeySource", "Limits", "StoreConfig"]

KIB = 1024
MIB = 1024 * KIB

MAX_CHUNK_BYTES = 64 * MIB
MIN_GRACE_S = 3600.0
MIN_EXCLUSIVE_GRACE_S = 0.1
"""An eighth of it is what clocks may be apart, and times of files come in steps of up to 10 ms."""
MAX_SECONDS = 1e9
"""Thirty years; the system's timers end at ten times as much."""

Codec = Literal["auto", "planes", "raw"]
Durability = Literal["full", "os"]
OnBusy = Literal["wait", "skip", "error"]
KeySource = str | os.PathLike[str] | Callable[[str | None], Any]


# The header of a manifest has 32 bits for a length; msgpack nests 511 levels.
_MOST = {"max_manifest_stored_bytes": 2**32 - 1, "max_manifest_raw_bytes": 2**32 - 1, "max_depth": 256}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is refused because of its size, on the way in and on the way out.

    A load checks the limits before it allocates, so a hostile or damaged
    manifest costs no memory. Exceeding one raises LimitExceededError (metadata
    given to a save: ConfigError).
    """

    max_manifest_stored_bytes: int = 64 * MIB
    max_manifest_raw_bytes: int = 256 * MIB
    max_nodes: int = 2_000_000
    """Containers, arrays and pickled parts in one field, and elements of one container."""
    max_depth: int = 64
    """Nesting of user metadata (values may nest without limit)."""
    max_metadata_bytes: int = MIB
    max_dims: int = 64
    max_chunks: int = 4_000_000
    max_pickle_bytes: int = 256 * MIB
    """Length of one pickle that is loaded without trust."""
    max_pickle_memory_bytes: int = 192 * MIB
    """What the objects of one pickle that is loaded without trust may take beyond its length, by an estimate."""
    max_total_bytes: int = 1 << 44
    """Raw bytes of one checkpoint."""

    def __post_init__(self) -> None:
        for item in fields(self):
            _require_positive_int(item.name, getattr(self, item.name), _MOST.get(item.name, 2**62))


def _default_workers() -> int:
    return max(2, min(8, usable_cores()))


def _default_memory_bytes() -> int:
    usable = usable_memory_bytes()
    return 256 * MIB if usable is None else max(32 * MIB, min(256 * MIB, usable // 8))


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """The options of one store object. Wrong ones raise ConfigError here, before any I/O."""

    chunk_bytes: int = 8 * MIB
    """Raw bytes of a full chunk, at most 64 MiB."""
    inline_bytes: int = 4 * KIB
    """Buffers up to this size travel inside the manifest."""
    codec: Codec = "auto"
    """``planes``: compress; a sample of each chunk decides between byte planes, zstd and none.
    ``raw``: never compress. ``auto``: as ``planes``, but in a save of at least 64 MiB chunks that a
    sample shows to shrink by less than four tenths (as most numbers do) are stored raw while the
    storage takes bytes about as fast as they could be compressed. ``inspect(codecs=True)`` tells what came of it."""
    memory_bytes: int = field(default_factory=_default_memory_bytes)
    """Bound of the bytes in flight in one save or load, beyond a background save's snapshot. By
    default 256 MiB, or an eighth of the memory that the machine or a control group allows, at least 32 MiB."""
    encode_workers: int = field(default_factory=_default_workers)
    """Threads that digest, compress, read and write. By default the processors that affinity and the
    quotas of control groups leave to this process, at least 2 and at most 8. Until somebody waits
    for it, a background save keeps one thread fewer busy with its chunks, and (on Linux) one that
    stands back where others want the processors: they are left to what goes on meanwhile."""
    io_concurrency: int = 8
    """Requests of one save or load under way at once; a distant storage is found to take more or fewer."""
    durability: Durability = "full"
    """Local stores: ``full`` flushes to the disk before a save is acknowledged, ``os`` leaves that
    to the operating system (survives a killed process, not a power cut)."""
    on_busy: OnBusy = "wait"
    """What a save does while another of the same store is in flight."""
    exit_timeout_s: float = 60.0
    """How long the interpreter's end waits for background saves."""
    grace_s: float = 86_400.0
    """G of the protocol, written to a new store's marker; an existing store keeps its own."""
    max_save_s: float | None = None
    """T of the protocol: how long one save may take; None is half the grace."""
    exclusive: bool = False
    """No other process uses this store: allows a grace below an hour, down to 0.1 s (tests, scratch)."""
    signing_key: KeySource | None = field(default=None, repr=False)
    """Sign what is saved and refuse what is not signed: the path of a file of keys, or a function.

    A line of the file is the id of a key (1 to 16 letters, digits, ``.``, ``_``
    or ``-``), a space and at least 64 hex digits; the first one signs, all of
    them verify. Nobody else may read it. A function is called, also later and
    from any thread, with None for ``(id, bytes)`` of the newest key, and with
    the id of an older one for its bytes, or None."""
    warn_untrusted: bool = True
    """Log a warning, once per type, when a save holds what needs trust to be loaded."""
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        _require_positive_int("chunk_bytes", self.chunk_bytes, MAX_CHUNK_BYTES)
        _require_positive_int("memory_bytes", self.memory_bytes, 2**62)
        _require_positive_int("encode_workers", self.encode_workers, 256)
        _require_positive_int("io_concurrency", self.io_concurrency, 1024)
        if type(self.inline_bytes) is not int or not 0 <= self.inline_bytes <= 64 * KIB:
            raise ConfigError(f"inline_bytes must be an int from 0 to 65536, not {self.inline_bytes!r}")
        _require_choice("codec", self.codec, get_args(Codec))
        _require_choice("durability", self.durability, get_args(Durability))
        _require_choice("on_busy", self.on_busy, get_args(OnBusy))
        _require_seconds("exit_timeout_s", self.exit_timeout_s)
        _require_seconds("grace_s", self.grace_s)
        if self.max_save_s is not None:
            _require_seconds("max_save_s", self.max_save_s)
            if self.max_save_s >= self.grace_s:
                raise ConfigError(
                    f"max_save_s {self.max_save_s:g} must stay below grace_s {self.grace_s:g}; "
                    "for a store with a longer grace, give that as well"
                )
        if type(self.exclusive) is not bool:
            raise ConfigError(f"exclusive must be a bool, not {self.exclusive!r}")
        if type(self.warn_untrusted) is not bool:
            raise ConfigError(f"warn_untrusted must be a bool, not {self.warn_untrusted!r}")
        key = self.signing_key
        if (
            key is not None
            and not callable(key)
            and (not isinstance(key, (str, os.PathLike)) or not os.fspath(key))
        ):
            # It may be the key itself: not a word of it.
            raise ConfigError(
                f"signing_key must be the path of a file or a function, not {type(key).__name__}"
            )
        if not isinstance(self.limits, Limits):
            raise ConfigError(f"limits must be a Limits, not {type(self.limits).__name__}")
        if not self.exclusive and self.grace_s < MIN_GRACE_S:
            raise ConfigError(
                f"grace_s is {self.grace_s}; below {MIN_GRACE_S:.0f} s it is allowed only with exclusive=True, "
                "which promises that no other process uses the store"
            )
        if self.grace_s < MIN_EXCLUSIVE_GRACE_S:
            raise ConfigError(
                f"grace_s is {self.grace_s}; below {MIN_EXCLUSIVE_GRACE_S} s the times of files are too coarse to tell "
                "what is old enough"
            )


def _require_positive_int(name: str, value: object, most: int) -> None:
    if type(value) is not int or not 0 < value <= most:
        raise ConfigError(f"{name} must be an int from 1 to {most}, not {value!r}")


def _require_seconds(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= MAX_SECONDS:
        raise ConfigError(
            f"{name} must be a number of seconds above 0, at most {MAX_SECONDS:g}, not {value!r}"
        )


def _require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")
