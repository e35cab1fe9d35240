"""How values come back from an open store: all of a checkpoint, some of it, or a handle that gives it bit by bit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ckptstore._fallback import check_fallback
from ckptstore._handle import CheckpointHandle, check_leaves
from ckptstore._into import load_into
from ckptstore._keys import parse_checkpoint
from ckptstore._reader import ReadOptions, load, read
from ckptstore._trust import Trusted, check_trusted
from ckptstore._upkeep import What
from ckptstore.checkpoint import CheckpointRef
from ckptstore.errors import CheckpointNotFoundError, ConfigError

if TYPE_CHECKING:
    from ckptstore._fallback import Found
    from ckptstore._upload import Engine
    from ckptstore.manifest import ManifestSource
    from ckptstore.serializers import Registry

__all__ = ["StoreReading"]

T = TypeVar("T")


class StoreReading:
    """The part of an open store that loads; what it stands on is the store's."""

    if TYPE_CHECKING:
        _engine: Engine
        _registry: Registry

        @property
        def url(self) -> str: ...
        def _check_open(self) -> None: ...
        async def _source(self, what: What, *, deleted: bool = False) -> ManifestSource: ...
        async def _newest(
            self, collection: str, read: Callable[[ManifestSource], Awaitable[T]], *, fallback: int
        ) -> tuple[T, Found] | None: ...

    async def load(
        self,
        what: What,
        *,
        fields: Sequence[str] | None = None,
        leaves: Mapping[str, Sequence[str]] | None = None,
        into: Mapping[str, object] | None = None,
        inplace: bool = False,
        trusted: Trusted = False,
        device: str | None = None,
        fallback: int = 0,
    ) -> dict[str, Any]:
        """Return the saved values, or those of some ``fields``; everything is verified before anything is built.

        ``what``: a checkpoint, its reference (also as a dict), its name as
        reports have it, ``collection@name``, or the name of a collection, which
        stands for its newest. ``device``: where tensors that were saved from
        another device than the CPU go; None is the CPU, "saved" for each the
        one it was on.

        ``leaves``: only these arrays and tensors, by field and by the paths that
        ``inspect`` shows; of nothing else is any data read, and what is returned
        holds them by the same names. Not for those inside pickled objects.

        ``into``: by field, what takes the values instead of new objects: arrays,
        tensors, ``nn.Module``s (their parameters and buffers, from a saved module
        or state_dict), and dicts and lists of these. Arrays keep their memory,
        dtype, device and flags; what else stands in a dict or list is replaced.
        It must have the checkpoint's keys, lengths, shapes and dtypes, and must
        not be used meanwhile; what is returned holds it. Nothing of it changes
        unless all is verified and fits: then it is copied, in one go, from
        memory that is as large. ``inplace=True`` does without that memory where
        an array is contiguous on the CPU, and decodes into it: then an error
        that comes once data is read (ChunkCorruptError, ChunkMissingError,
        BackendError, …; a cancellation) leaves the arrays' content undefined.

        Objects of well-known classes that hold only data, and of those that you
        ``allow``, are restored by rules that run nothing else. ``trusted=True``:
        you trust who wrote the store, so pickles may run. ``"verified"``: they
        may if the checkpoint is signed with your ``signing_key``, or ``what`` is
        a reference (a CheckpointRef or its dict) that you kept, which pins it.

        ``fallback``: with the name of a collection, take one of up to so many
        older checkpoints where the newest is damaged, manifest or data. It is
        logged as a warning, and recorded as by ``latest``.

        Raises CheckpointNotFoundError, CheckpointDeletedError, NotFoundError (no
        such path), ConfigError, DestinationError (with all that does not fit),
        UntrustedPickleError, SignatureError, ChunkCorruptError,
        ChunkMissingError, StoreMismatchError, IntegrityError, FormatError, BackendError.
        """
        options, fallback = self._options(what, trusted, device), check_fallback(fallback)
        read_one: Callable[[ManifestSource], Awaitable[dict[str, Any]]]
        if type(inplace) is not bool or (inplace and into is None):
            raise ConfigError(f"inplace must be a bool, and goes with into, not {inplace!r:.80}")
        if leaves is not None:
            if fields is not None or into is not None:
                raise ConfigError(
                    "leaves go with neither fields nor into: what they ask for is not a whole field"
                )
            read_one = partial(self._leaves, options=options, leaves=check_leaves(leaves))
        elif into is not None:
            if not isinstance(into, Mapping) or not all(isinstance(name, str) for name in into):
                raise ConfigError(
                    f"into must be a mapping of field names to objects, not {type(into).__name__}"
                )
            read_one = partial(
                load_into, self._engine, options=options, fields=fields, into=dict(into), inplace=inplace
            )
        else:
            read_one = partial(load, self._engine, options=options, fields=fields)
        if not fallback:
            return await read_one(await self._source(what))
        if not isinstance(what, str) or parse_checkpoint(what) is not None:
            kind = "that of a checkpoint" if isinstance(what, str) else type(what).__name__
            raise ConfigError(f"fallback goes with the name of a collection, not with {kind}")
        values = await self._newest(what, read_one, fallback=fallback)
        if values is None:
            raise CheckpointNotFoundError(f"collection {what!r} of {self.url} has no checkpoint")
        return values[0]

    async def handle(
        self,
        what: What,
        *,
        fields: Sequence[str] | None = None,
        trusted: Trusted = False,
        device: str | None = None,
    ) -> CheckpointHandle:
        """Open a checkpoint to look around in it, and to load single parts of it.

        This reads the manifest and the graphs of the fields, or of some
        ``fields``: their containers, keys, shapes and plain values, and no data
        of arrays and tensors. The arguments are those of ``load``, and count
        for what the handle loads.

            handle = await store.handle("exp/run1")
            weight = await handle["model"]["layers.0.weight"].load()

        Raises as ``load``.
        """
        options = self._options(what, trusted, device)
        return await self._open(await self._source(what), options, fields)

    async def _open(
        self, source: ManifestSource, options: ReadOptions, fields: Sequence[str] | None
    ) -> CheckpointHandle:
        reading = await read(self._engine, source, options=options, fields=fields)
        names = reading.manifest.fields if fields is None else dict.fromkeys(fields)
        return CheckpointHandle(reading, list(names), self._check_open)

    async def _leaves(
        self, source: ManifestSource, *, options: ReadOptions, leaves: dict[str, list[str]]
    ) -> dict[str, Any]:
        handle = await self._open(source, options, list(leaves))
        return {**await handle.load(leaves)}

    def _options(self, what: What, trusted: Trusted, device: str | None) -> ReadOptions:
        return ReadOptions(
            trusted=check_trusted(trusted),
            pinned=isinstance(what, (CheckpointRef, Mapping)),
            device=device,
            registry=self._registry,
        )
