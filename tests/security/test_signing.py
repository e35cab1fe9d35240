"""Signed manifests: what a key covers, what it refuses, and how keys follow one another."""

from __future__ import annotations

import hashlib
import hmac
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from forge import DATA, DRAFT, LIMITS, SOURCE, assembled, parts

from ckptstore._signing import SIGNED_BYTES, Keyring
from ckptstore.config import StoreConfig
from ckptstore.errors import (
    CheckpointStoreError,
    ConfigError,
    FormatError,
    ManifestCorruptError,
    SignatureError,
    UnsupportedVersionError,
)
from ckptstore.manifest import HEADER_BYTES, decode_summary, decode_table, encode, key_id_of, summary_end

SECRET, OTHER = b"\x01" * 32, b"\x02" * 40


def keyring(**keys: bytes) -> Keyring:
    """Return a keyring of these keys, the first of which signs."""
    newest = next(iter(keys))
    return Keyring.of(lambda key_id: (newest, keys[newest]) if key_id is None else keys[key_id])


OURS = keyring(k1=SECRET)
SIGNED = encode(DRAFT, LIMITS, OURS)


def redigested(data: bytes | bytearray) -> bytes:
    """Return a manifest whose header has the digest it needs, as somebody who changed it would make it."""
    head = bytes(data[: HEADER_BYTES - 32])
    return head + blake3(head).digest() + bytes(data[HEADER_BYTES:])


def opened(data: bytes, keys: Keyring | None = OURS) -> Any:
    manifest = decode_summary(data, SOURCE, LIMITS, keys)
    decode_table(data, manifest, SOURCE, LIMITS, keys)
    return manifest


def test_a_signed_manifest_says_what_an_unsigned_one_says() -> None:
    signed, plain = opened(SIGNED), opened(DATA, None)
    assert signed.fields == plain.fields
    assert (signed.signed_by, signed.signature_verified) == ("k1", True)
    assert (plain.signed_by, plain.signature_verified) == (None, False)
    assert signed.checkpoint.ref.digest != plain.checkpoint.ref.digest


def test_the_mac_is_made_as_specified() -> None:
    assert SIGNED_BYTES == 104
    assert struct.unpack_from(">H", SIGNED, 6) == (1,)
    assert SIGNED[88:104] == b"k1" + bytes(14)
    assert SIGNED[104:136] == hmac.new(SECRET, SIGNED[:104], hashlib.sha256).digest()
    assert SIGNED[136:168] == blake3(SIGNED[:136]).digest()


def test_without_a_key_a_signature_is_told_but_not_checked() -> None:
    manifest = opened(SIGNED, None)
    assert (manifest.signed_by, manifest.signature_verified) == ("k1", False)
    forged = bytearray(SIGNED)
    forged[104] ^= 1
    assert opened(redigested(forged), None).signed_by == "k1"
    unnamed = bytearray(SIGNED)
    unnamed[88:104] = b"\xff" * 16
    assert opened(redigested(unnamed), None).signed_by == "ff" * 16


def test_every_bit_of_header_and_mac_is_covered() -> None:
    for bit in range(8 * (HEADER_BYTES - 32)):
        changed = bytearray(SIGNED)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises((SignatureError, FormatError)):
            opened(bytes(changed))
        # Whoever changes it can make a digest, but no MAC. What the header itself does not allow is told first.
        expected = (
            (SignatureError, UnsupportedVersionError) if bit // 8 in (4, 5, 6, 7) else (SignatureError,)
        )
        if bit // 8 < 4:
            expected = (ManifestCorruptError,)
        if bit == 8 * 7:
            expected = (ManifestCorruptError,)
        with pytest.raises(expected):
            opened(redigested(changed))


def test_what_a_header_covers_is_covered() -> None:
    summary, body = parts(SIGNED)
    signature = SIGNED[88:136]
    for changed in ((summary.replace(b"Train", b"Brain"), body), (summary, body.replace(OLD, NEW))):
        with pytest.raises(SignatureError, match="wrong"):
            opened(assembled(*changed, flags=1, signature=signature))


OLD, NEW = b"oldnonce", b"badnonce"


def test_a_downgrade_is_refused() -> None:
    with pytest.raises(SignatureError, match="not signed"):
        opened(DATA)
    summary, body = parts(SIGNED)
    with pytest.raises(SignatureError, match="not signed"):
        opened(assembled(summary, body))
    with pytest.raises(ManifestCorruptError, match="without its flag"):
        opened(assembled(summary, body, signature=SIGNED[88:136]))
    with pytest.raises(UnsupportedVersionError):
        opened(assembled(summary, body, flags=3, signature=SIGNED[88:136]))
    with pytest.raises(SignatureError, match="does not have"):
        opened(assembled(summary, body, flags=1))


def test_another_key_is_refused_whether_its_id_is_known_or_not() -> None:
    with pytest.raises(SignatureError, match="by the key 'k1' is wrong"):
        opened(encode(DRAFT, LIMITS, keyring(k1=OTHER)))
    with pytest.raises(SignatureError, match="the key 'k2', which signing_key does not have"):
        opened(encode(DRAFT, LIMITS, keyring(k2=SECRET)))
    unnamed = bytearray(SIGNED)
    unnamed[88] = 0xFF
    with pytest.raises(SignatureError, match="the key None"):
        opened(redigested(unnamed))


def test_every_way_to_read_a_manifest_checks_it() -> None:
    ways: list[Callable[[bytes], object]] = [
        lambda data: summary_end(data, SOURCE, LIMITS, OURS),
        lambda data: decode_summary(data, SOURCE, LIMITS, OURS),
        lambda data: decode_table(data, opened(DATA, None), SOURCE, LIMITS, OURS),
    ]
    for way in ways:
        way(SIGNED)
        with pytest.raises(SignatureError):
            way(DATA)


def test_keys_follow_one_another() -> None:
    both = keyring(k2=OTHER, k1=SECRET)
    newer = encode(DRAFT, LIMITS, both)
    assert key_id_of(newer) == b"k2".ljust(16, b"\0")
    assert key_id_of(DATA) is None
    assert key_id_of(b"") is None
    assert opened(newer, both).signed_by == "k2"
    # An older key is asked for when something it signed is met.
    assert both.lacks(b"k1".ljust(16, b"\0"))
    both.fetch(b"k1".ljust(16, b"\0"))
    assert not both.lacks(b"k1".ljust(16, b"\0"))
    assert opened(SIGNED, both).signed_by == "k1"
    with pytest.raises(SignatureError, match="'k2'"):
        opened(newer)
    assert not both.lacks(b"\xff" * 16)
    assert not OURS.lacks(b"k1".ljust(16, b"\0"))


def test_a_function_may_not_know_a_key_or_fail() -> None:
    def fetch(answer: Callable[[str], Any]) -> Keyring:
        ring = Keyring.of(lambda key_id: ("k1", SECRET) if key_id is None else answer(key_id))
        ring.fetch(b"k9".ljust(16, b"\0"))
        return ring

    def missing(key_id: str) -> Any:
        raise KeyError(key_id)

    def failing(key_id: str) -> Any:
        raise ConnectionError("the vault is down")

    for answer in (missing, lambda key_id: None, lambda key_id: b"short", lambda key_id: "x" * 32):
        assert fetch(answer).lacks(b"k9".ljust(16, b"\0"))
    with pytest.raises(SignatureError, match=r"'k9' could not be had: .* ConnectionError"):
        fetch(failing)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        SECRET,
        ("k1",),
        ("k1", "x" * 32),
        ("k1", SECRET[1:]),
        ("", SECRET),
        ("k/1", SECRET),
        ("k" * 17, SECRET),
        (1, SECRET),
    ],
)
def test_a_function_must_give_an_id_and_enough_bytes(answer: Any) -> None:
    with pytest.raises(ConfigError, match="signing_key: asked with None"):
        Keyring.of(lambda key_id: answer)


def test_a_function_that_fails_at_once_is_told() -> None:
    def failing(key_id: str | None) -> Any:
        raise OSError("no vault")

    with pytest.raises(ConfigError, match="OSError") as caught:
        Keyring.of(failing)
    assert isinstance(caught.value.__cause__, OSError)


def key_file(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "keys"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_file_holds_keys_and_the_first_signs(tmp_path: Path) -> None:
    path = key_file(tmp_path, f"# newest first\n\nk2 {OTHER.hex()}\n  k1   {SECRET.hex().upper()}\n")
    ring = Keyring.of(path)
    assert ring.newest == b"k2".ljust(16, b"\0")
    assert opened(SIGNED, ring).signed_by == "k1"
    assert not ring.lacks(b"k3".ljust(16, b"\0"))
    assert Keyring.of(str(path)).newest == ring.newest
    path.chmod(0o440)
    assert Keyring.of(path).newest == ring.newest


BAD_FILES = {
    "": "holds no key",
    "# k1\n": "holds no key",
    f"k1{SECRET.hex()}": "no key in line 1",
    f"k1 {SECRET.hex()} more": "no key in line 1",
    f"\nk/1 {SECRET.hex()}": "no key in line 2",
    f"{'k' * 17} {SECRET.hex()}": "no key in line 1",
    f"k1 {SECRET.hex()}0": "no key in line 1",
    f"k1 {SECRET[1:].hex()}": "no key in line 1",
    f"k1 {'g' * 64}": "no key in line 1",
    f"k1 {SECRET.hex()}\nk1 {OTHER.hex()}": "the id of line 2 twice",
    f"k1 {SECRET.hex()}\n" + "#" * 65536: "longer than",
}


@pytest.mark.parametrize("text", BAD_FILES, ids=list(BAD_FILES.values()))
def test_a_file_that_is_not_one_of_keys_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=BAD_FILES[text]) as caught:
        Keyring.of(key_file(tmp_path, text))
    assert SECRET.hex() not in str(caught.value)


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601, 0o620, 0o666])
def test_a_file_that_others_may_read_or_change_is_refused(mode: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="other users: chmod 600"):
        Keyring.of(key_file(tmp_path, f"k1 {SECRET.hex()}", mode))


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    for path, reason in (
        (tmp_path / "gone", "FileNotFoundError"),
        (tmp_path, "is not a file"),
        (tmp_path / "fifo", "is not a file"),
        (Path("a\0b"), "ValueError"),
    ):
        with pytest.raises(ConfigError, match=reason):
            Keyring.of(path)


@pytest.mark.parametrize("value", [SECRET, 1, True, "", b"path", ["k"]])
def test_a_key_itself_is_no_option(value: Any) -> None:
    with pytest.raises(ConfigError, match="signing_key must be the path") as caught:
        StoreConfig(signing_key=value)
    assert "\\x01" not in str(caught.value)


def test_a_keyring_cannot_be_pickled_nor_copied_by_it() -> None:
    with pytest.raises(TypeError, match="is not pickled"):
        pickle.dumps(OURS._keys)


def test_errors_of_signatures_are_ours() -> None:
    assert issubclass(SignatureError, CheckpointStoreError)
    assert not issubclass(SignatureError, FormatError)
