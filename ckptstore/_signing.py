"""Signatures of manifests: an HMAC over the header, which holds the digests of everything else.

The bytes of a key stay in two functions of this module, and in none that
raises: no error, traceback or ``repr`` can show them.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
from collections.abc import Callable
from typing import Any

from ckptstore.config import KeySource
from ckptstore.errors import ConfigError, SignatureError

__all__ = ["KEY_ID_BYTES", "SIGNED_BYTES", "Keyring"]

SIGNED_BYTES = 104
"""The MAC is over so many bytes from the manifest's start."""
KEY_ID_BYTES = 16
_MIN_KEY_BYTES = 32
_MAX_FILE_BYTES = 64 * 1024
_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,16}", re.ASCII)


class _Key:
    """A key, ready for use and never to be seen."""

    __slots__ = ("_begun",)

    def __init__(self, begun: Any) -> None:
        self._begun = begun

    def mac(self, data: bytes | memoryview) -> bytes:
        made = self._begun.copy()
        made.update(data)
        digest: bytes = made.digest()
        return digest

    def __repr__(self) -> str:
        return "<signing key>"

    def __reduce__(self) -> Any:
        raise TypeError("a signing key is not pickled")


class Keyring:
    """The keys of one store: the newest signs, and all of them verify."""

    def __init__(self, newest: str, keys: dict[str, _Key], more: Callable[[str], Any] | None = None) -> None:
        self._newest = newest
        self._keys = keys
        self._more = more

    @classmethod
    def of(cls, source: KeySource) -> Keyring:
        """Return the keys of ``StoreConfig.signing_key``. It reads a file, or calls the function: not on a loop.

        Raises ConfigError.
        """
        if callable(source):
            return cls._of_function(source)
        keys = _read_keys(os.fspath(source))
        if isinstance(keys, str):
            raise ConfigError(f"signing_key: the file {os.fspath(source)!r} {keys}")
        return cls(next(iter(keys)), keys)

    @classmethod
    def _of_function(cls, function: Callable[[str | None], Any]) -> Keyring:
        try:
            key_id, key = _newest(function)
        except Exception as exc:
            raise ConfigError(
                f"signing_key: the function raised {type(exc).__name__} when asked for the newest key"
            ) from exc
        if key is None:
            raise ConfigError(
                "signing_key: asked with None, the function must return the id of the newest key (1 to 16 letters, "
                f"digits, '.', '_' or '-') and its bytes, at least {_MIN_KEY_BYTES}"
            )
        return cls(key_id, {key_id: key}, function)

    def sign(self, data: bytes) -> bytes:
        """Return the MAC by the newest key over the first ``SIGNED_BYTES`` of a manifest that names it."""
        return self._keys[self._newest].mac(data)

    @property
    def newest(self) -> bytes:
        """The id of the key that signs, as a header has it."""
        return self._newest.encode("ascii").ljust(KEY_ID_BYTES, b"\0")

    def lacks(self, key_id: bytes) -> bool:
        """Tell whether ``fetch`` has to be called before a signature of that key can be verified."""
        name = shown_id(key_id)
        return self._more is not None and name is not None and name not in self._keys

    def fetch(self, key_id: bytes) -> None:
        """Ask the function for a key; it may block. Raises SignatureError if it fails."""
        name = shown_id(key_id)
        assert name is not None
        assert self._more is not None
        try:
            key = _key_of(self._more(name))
        except LookupError:
            return
        except Exception as exc:
            raise SignatureError(
                f"the key {name!r} could not be had: the function of signing_key raised {type(exc).__name__}"
            ) from exc
        if key is not None:
            self._keys[name] = key

    def verify(self, what: str, data: memoryview, key_id: bytes, mac: bytes) -> None:
        """Raise SignatureError unless ``mac`` is that of ``data`` by the key of that id; ``what`` is the manifest."""
        name = shown_id(key_id)
        key = None if name is None else self._keys.get(name)
        if key is None:
            raise SignatureError(
                f"{what} is signed with the key {name!r}, which signing_key does not have: add it if it is yours"
            )
        if not hmac.compare_digest(key.mac(data), mac):
            raise SignatureError(
                f"{what}: its signature by the key {name!r} is wrong; somebody else wrote it"
            )


def shown_id(key_id: bytes) -> str | None:
    """Return the id of a key from a header, None if it is none."""
    text = key_id.rstrip(b"\0").decode("ascii", "replace")
    return text if _KEY_ID.fullmatch(text) else None


def _newest(function: Callable[[str | None], Any]) -> tuple[str, _Key | None]:
    answer = function(None)
    if type(answer) is tuple and len(answer) == 2 and type(answer[0]) is str and _KEY_ID.fullmatch(answer[0]):
        return answer[0], _key_of(answer[1])
    return "", None


def _key_of(secret: Any) -> _Key | None:
    """Return a key, None if it is not bytes or too short. It never raises, because it can see the secret."""
    if type(secret) is not bytes or len(secret) < _MIN_KEY_BYTES:
        return None
    return _Key(hmac.new(secret, digestmod=hashlib.sha256))


def _read_keys(path: str) -> dict[str, _Key] | str:
    """Return the keys of a file, newest first, or what is wrong with it. It never raises, as ``_key_of``."""
    try:
        # A FIFO would wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as exc:
        return f"cannot be read ({type(exc).__name__})"
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            return "is not a file"
        if info.st_mode & (stat.S_IRWXO | stat.S_IWGRP):
            return "may be read or changed by other users: chmod 600"
        text = os.read(fd, _MAX_FILE_BYTES + 1)
    finally:
        os.close(fd)
    if len(text) > _MAX_FILE_BYTES:
        return f"is longer than {_MAX_FILE_BYTES} bytes"
    keys: dict[str, _Key] = {}
    for number, line in enumerate(text.decode("ascii", "replace").splitlines(), 1):
        parts = line.split()
        if not parts or parts[0].startswith("#"):
            continue
        well_formed = (
            len(parts) == 2 and _KEY_ID.fullmatch(parts[0]) and re.fullmatch(r"(?:[0-9a-fA-F]{2})+", parts[1])
        )
        key = _key_of(bytes.fromhex(parts[1])) if well_formed else None
        if key is None:
            return f"has no key in line {number}: a line is an id, a space, and at least 64 hex digits"
        if parts[0] in keys:
            return f"has the id of line {number} twice"
        keys[parts[0]] = key
    return keys or "holds no key"
