from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ckptstore.backends import StoreURL, open_backend, parse_url
from ckptstore.backends.local import LocalBackend
from ckptstore.backends.memory import MemoryBackend
from ckptstore.config import StoreConfig
from ckptstore.errors import AccessDeniedError, ConfigError, InvalidURLError, StoreNotFoundError


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/data/store", StoreURL("file", "/data/store")),
        ("/data/../store/", StoreURL("file", "/store")),
        (Path("/data/store"), StoreURL("file", "/data/store")),
        ("some/store", StoreURL("file", os.path.abspath("some/store"))),
        ("../store", StoreURL("file", os.path.abspath("../store"))),
        (".", StoreURL("file", os.getcwd())),
        ("/data/a:b c", StoreURL("file", "/data/a:b c")),
        ("file:///data/store", StoreURL("file", "/data/store")),
        ("FILE:///data/store/", StoreURL("file", "/data/store")),
        ("file://localhost/data", StoreURL("file", "/data")),
        ("file:///data/a%20b%3F", StoreURL("file", "/data/a b?")),
        ("/dev/shm/store", StoreURL("file", "/dev/shm/store")),
        ("memory://", StoreURL("memory", "")),
        ("memory://some-name.1", StoreURL("memory", "some-name.1")),
        ("s3://bucket", StoreURL("s3", "", "bucket")),
        ("s3://my.bucket-1/a/b/", StoreURL("s3", "a/b", "my.bucket-1")),
    ],
)
def test_good_urls(url, expected):
    assert parse_url(url) == expected


BAD = [
    "",
    "   ",
    "\0",
    "/data/\0",
    "/data/a\nb",
    "file:///data/%00",
    "file:///data/%0a",
    "file://host/data",
    "file://",
    "file:///",
    "/",
    "file:/data",
    "file:data",
    "file:///data/../x",
    "file:///data/%2e%2e/x",
    "file:///dev/null",
    "/dev/null",
    "file:///dev/zero",
    "/proc/self/fd/1",
    "file:///data?endpoint=http://evil",
    "/data?endpoint=http://evil",
    "file:///data#part",
    "file://user:hunter2@host/data",
    "~/store",
    "http://169.254.169.254/",
    "https://user:hunter2@example.com/?token=hunter2",
    "http:/example.com",
    "gs://bucket/x",
    "metaflow://x",
    "://x",
    "s3://",
    "s3:///x",
    "s3:bucket",
    "s3://b",
    "s3://B_UCKET/x",
    "s3://b/../x",
    "s3://bucket/../x",
    "s3://bucket/a/%2E%2E/x",
    "s3://bucket/a//x",
    "s3://bucket/./x",
    "s3://bucket:9000/x",
    "s3://user:hunter2@bucket/x",
    "s3://hunter2@bucket/x",
    "s3://bucket/x?endpoint=hunter2",
    "s3://bucket/x?X-Amz-Signature=hunter2&y=1",
    "memory://a/b",
    "memory://a?b",
    "memory://a b",
    "memory://../x",
    b"/data",
    None,
    3,
]


@pytest.mark.parametrize("url", BAD, ids=repr)
def test_bad_urls_are_refused_without_their_secrets(url):
    with pytest.raises(InvalidURLError) as caught:
        parse_url(url)
    assert "hunter2" not in str(caught.value)
    assert "evil" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.fixture
def opened(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def opening(url, *, create=True, config=None, **options):
        async def main():
            with ThreadPoolExecutor(1, thread_name_prefix="ckptstore-test") as executor:
                backend = await open_backend(
                    url, config=config or StoreConfig(), executor=executor, create=create, **options
                )
                await backend.put("a/b", b"x")
                await backend.aclose()
                return backend

        return run(main())

    return opening


def test_opening_by_each_kind_of_url(opened, tmp_path):
    assert isinstance(opened("memory://x"), MemoryBackend)
    for url in ("plain/store", str(tmp_path / "abs"), f"file://{tmp_path}/with%20space", tmp_path / "p"):
        assert isinstance(opened(url), LocalBackend)
    assert (tmp_path / "plain" / "store" / "a" / "b").read_bytes() == b"x"
    assert (tmp_path / "with space" / "a" / "b").read_bytes() == b"x"
    assert opened("with space").url == f"file://{tmp_path}/with%20space"


def test_memory_stores_are_apart_unless_they_share_a_space(opened):
    space = {}
    first = opened("memory://same", space=space, clock=lambda: 7.0)
    assert space["a/b"] == (b"x", 7.0)
    assert opened("memory://same").space is not first.space
    assert first.url == "memory://same"


def test_a_missing_store_is_not_found_unless_it_may_be_made(opened, tmp_path):
    with pytest.raises(StoreNotFoundError, match="there is no store at"):
        opened("nowhere/store", create=False)
    assert not (tmp_path / "nowhere").exists()


def test_a_file_in_the_place_of_the_store_is_a_wrong_configuration(opened, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for url in ("file", "file/below"):
        with pytest.raises(ConfigError, match="directory"):
            opened(url)


@pytest.mark.parametrize("create", [True, False])
def test_a_bad_url_or_option_touches_nothing(opened, tmp_path, create):
    for url in BAD:
        with pytest.raises(InvalidURLError):
            opened(url, create=create)
    for url, option in [("store", "space"), ("store", "endpoint_url"), ("memory://", "region")]:
        with pytest.raises(ConfigError, match=option):
            opened(url, create=create, **{option: "hunter2"})
    for name, value in [("space", "hunter2"), ("clock", 3)]:
        with pytest.raises(ConfigError, match=name):
            opened("memory://", **{name: value})
    for name, value in [("durability", "os"), ("endpoint_url", "ftp://hunter2"), ("sse", "hunter2")]:
        with pytest.raises(ConfigError, match=name) as caught:
            opened("s3://bucket/prefix", create=create, **{name: value})
        assert "hunter2" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_somebody_elses_directory_open_to_all_is_refused(opened, tmp_path, monkeypatch):
    store = tmp_path / "open"
    store.mkdir()
    store.chmod(0o777)
    opened("open")
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(store).st_uid + 1)
    with pytest.raises(AccessDeniedError, match="another user"):
        opened("open")
    store.chmod(0o1777)
    opened("open")
    store.chmod(0o755)
    opened("open")
