"""Verification where manifests are signed: what a key finds, and what is told of what it cannot read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ckptstore import CheckpointStore, StoreConfig
from ckptstore.errors import CheckpointNotFoundError

KEYS = {"k1": b"\x01" * 32, "k2": b"\x02" * 32}
SECOND_K1 = {"k1": b"\x03" * 32}


def keys(*ids: str, of: dict[str, bytes] | None = None) -> Callable[[str | None], Any]:
    known = {key_id: (of or KEYS)[key_id] for key_id in ids}
    return lambda asked: (ids[0], known[ids[0]]) if asked is None else known[asked]


class Signed:
    """One local store, opened with one keyring after another."""

    def __init__(self, folder: Path) -> None:
        self.url = str(folder / "store")

    def open(self, signing_key: Any = None) -> CheckpointStore:
        return CheckpointStore.open(self.url, config=StoreConfig(durability="os", signing_key=signing_key))

    def save(self, signing_key: Any, *collections: str) -> list[Any]:
        with self.open(signing_key) as store:
            return [store.save(name, {"name": name, "data": b"x" * 20_000}) for name in collections]

    def verify(self, signing_key: Any, what: Any = None) -> Any:
        with self.open(signing_key) as store:
            return store.verify(what)


@pytest.fixture
def rig(tmp_path: Path) -> Signed:
    return Signed(tmp_path)


def test_a_signed_store_is_whole_with_its_key_and_without_any(rig: Signed) -> None:
    one, _ = rig.save(keys("k1"), "a", "b")
    for ring in (keys("k1"), None):
        assert [rig.verify(ring, what).ok for what in (one, one.ref, "a", None)] == [True] * 4
        assert rig.verify(ring).n_checkpoints == 2


@pytest.mark.parametrize(
    ("ring", "said"),
    [
        (keys("k1", of=SECOND_K1), "its signature by the key 'k1' is wrong"),
        (keys("k2"), "is signed with the key 'k1'"),
    ],
    ids=["another key of that id", "a key of another id"],
)
def test_with_a_wrong_key_each_checkpoint_is_unreadable(rig: Signed, ring: Any, said: str) -> None:
    one, other = rig.save(keys("k1"), "a", "b")
    for what, hit in ((one, [one]), (one.ref, [one]), ("a", [one]), (None, [one, other])):
        report = rig.verify(ring, what)
        assert not report.ok
        assert [problem.kind for problem in report.problems] == ["unreadable"] * len(hit)
        assert all(said in problem.detail for problem in report.problems)
        assert [problem.checkpoints for problem in report.problems] == [(str(each.ref),) for each in hit]
        assert [(found.checkpoint, found.heals, found.older) for found in report.damaged] == [
            (str(each.ref), False, None) for each in hit
        ]
        assert said in str(report)
        # What cannot be believed names no chunks that are worth a look.
        assert report.n_chunks == report.n_checked == 0


def test_an_unsigned_checkpoint_among_signed_ones_is_told_with_the_older_one_to_load(rig: Signed) -> None:
    (signed,) = rig.save(keys("k1"), "c")
    (plain,) = rig.save(None, "c")
    (newest,) = rig.save(keys("k1"), "c")
    report = rig.verify(keys("k1"), "c")
    assert report.n_checkpoints == 3
    (problem,) = report.problems
    assert (problem.kind, problem.checkpoints) == ("unreadable", (str(plain.ref),))
    assert "not signed" in problem.detail
    (damaged,) = report.damaged
    assert (damaged.checkpoint, damaged.older) == (str(plain.ref), str(signed.ref))
    assert rig.verify(keys("k1"), newest).ok
    assert not rig.verify(keys("k1"), plain).ok
    assert rig.verify(None, "c").ok


def test_while_keys_are_changed_both_are_whole_and_the_old_one_alone_is_not_enough(rig: Signed) -> None:
    (old,) = rig.save(keys("k1"), "c")
    (new,) = rig.save(keys("k2", "k1"), "c")
    assert rig.verify(keys("k2", "k1")).ok
    for ring, unread, older in ((keys("k1"), new, str(old.ref)), (keys("k2"), old, None)):
        report = rig.verify(ring)
        assert [problem.checkpoints for problem in report.problems] == [(str(unread.ref),)]
        assert "which signing_key does not have" in report.problems[0].detail
        assert [found.older for found in report.damaged] == [older]


def test_no_key_and_no_byte_of_a_signature_is_told(rig: Signed) -> None:
    (one,) = rig.save(keys("k1"), "c")
    told = str(rig.verify(keys("k1", of=SECOND_K1))) + repr(rig.verify(keys("k2")))
    (path,) = Path(rig.url, "manifests").rglob(one.ref.name)
    mac = path.read_bytes()[104:136]
    for secret in (*KEYS.values(), *SECOND_K1.values(), mac):
        assert secret.hex() not in told
        assert repr(secret)[2:-1] not in told


def test_a_key_that_cannot_be_had_is_an_unreadable_manifest(rig: Signed) -> None:
    rig.save(keys("k1"), "c")

    def failing(key_id: str | None) -> Any:
        if key_id is None:
            return "k2", KEYS["k2"]
        raise ConnectionError("the vault is down")

    (problem,) = rig.verify(failing).problems
    assert problem.kind == "unreadable"
    assert "could not be had" in problem.detail
    assert "vault" not in problem.detail


def test_a_damaged_chunk_is_told_beside_a_wrong_signature(rig: Signed) -> None:
    (old,) = rig.save(keys("k1"), "a")
    (other,) = rig.save(keys("k2"), "b")
    with rig.open(keys("k1")) as store:
        store.save("a", {"data": bytes(range(256)) * 100})
        fewest = {path for path in Path(rig.url, "chunks").rglob("*.*") if path.is_file()}
        hurt = store.save("a", {"data": bytes(range(255)) * 100})
    (path,) = {path for path in Path(rig.url, "chunks").rglob("*.*") if path.is_file()} - fewest
    path.unlink()
    report = rig.verify(keys("k1"))
    assert {problem.kind: problem.checkpoints for problem in report.problems} == {
        "unreadable": (str(other.ref),),
        "missing": (str(hurt.ref),),
    }
    assert str(old.ref) not in {found.checkpoint for found in report.damaged}
    with rig.open(keys("k1")) as store, pytest.raises(CheckpointNotFoundError):
        store.verify("nothing")
