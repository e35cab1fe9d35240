"""Pickles of writers nobody vouches for: a machine of our own that calls nothing but what the allowlist makes.

Why it is safe. ``pickle.Unpickler`` is not used. The machine knows the opcodes
that a pickler of protocol 5 writes and no others. A name is looked up as it
stands, as a pair of module and qualified name, in an ``Allowlist``: it is never
imported to see, and no attribute is walked. What a name puts on the stack is a
``Rule`` of ours, not the class or function, so there is nothing to call, to set
attributes on or to take a bound method from. REDUCE, NEWOBJ, NEWOBJ_EX and
BUILD work on rules, and on objects that a rule made in this very stream; a
value that comes back from a call is never callable here, whatever it is. The
rules check exact types and sizes before they make anything (``_safe_…``).
Objects from outside the stream, which persistent ids bring in, are data: they
cannot be changed. Classes that the program allowed are the one exception:
their own code runs, because the program said so.

Memory is counted before it is taken, by an estimate per opcode and object;
there is no recursion; keys and chains of containers that the interpreter could
not hash or free are refused (``_nesting``). Calls that take more time than
their bytes tell are counted for the whole load (``Work``), so time is linear in
the stream, save for keys that were chosen so that their hashes collide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ckptstore.config import Limits
from ckptstore.errors import (
    CheckpointStoreError,
    LimitExceededError,
    ManifestCorruptError,
    UntrustedPickleError,
)
from ckptstore.serializers._allowlist import Allowlist
from ckptstore.serializers._machine import Machine
from ckptstore.serializers._nesting import Chains, KeyWork
from ckptstore.serializers._opcodes import DamageError
from ckptstore.serializers._rules import UnfitError, Work

__all__ = ["load_allowed", "refusal"]


def load_allowed(
    stream: bytes,
    *,
    refs: Sequence[Any],
    buffers: Sequence[memoryview],
    field: str,
    allowed: Allowlist,
    chains: Chains,
    keys: KeyWork,
    work: Work,
    limits: Limits,
) -> Any:
    """Return the object of a pickle, made by rules alone.

    ``refs`` are what its persistent ids stand for, ``buffers`` its out-of-band
    buffers; all of them must be used. ``chains``, ``keys`` and ``work`` are those of the whole load.

    Raises UntrustedPickleError for what the allowlist does not make,
    ManifestCorruptError for a damaged stream, LimitExceededError, and
    CheckpointStoreError for a class that cannot be imported or whose own code raises.
    """
    keys.allow(16 * len(stream))
    work.allow(4 * len(stream))
    machine = Machine(
        stream, refs, buffers, allowed=allowed, chains=chains, keys=keys, work=work, limits=limits
    )
    try:
        made = machine.run()
        chains.check()
    except UnfitError as exc:
        raise refusal(field, str(exc)) from exc
    except DamageError as exc:
        raise ManifestCorruptError(f"the pickle in field {field!r} is damaged: {exc}") from exc
    except (IndexError, UnicodeDecodeError, TypeError) as exc:
        # The stack was empty, a text is none, a key cannot be hashed.
        raise ManifestCorruptError(f"the pickle in field {field!r} is damaged: {type(exc).__name__}") from exc
    except CheckpointStoreError as exc:
        if type(exc) not in (CheckpointStoreError, LimitExceededError):
            raise
        raise type(exc)(f"field {field!r}: {exc}") from exc
    return made


def refusal(field: str, what: str) -> UntrustedPickleError:
    """Return the error for something that needs trust."""
    return UntrustedPickleError(
        f"field {field!r} is pickled and needs {what}, which is not loaded without trust: store.allow(cls) a "
        "class of yours that is harmless to restore, pass trusted=True if you trust who wrote it, or load other fields"
    )
