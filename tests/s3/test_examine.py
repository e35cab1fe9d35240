"""What the doctor says of a bucket."""

from __future__ import annotations

import asyncio

import pytest

from ckptstore.backends._s3_examine import findings
from ckptstore.doctor import examine, examine_backend


def test_a_good_bucket_has_no_problems(server, run):
    async def scenario():
        return [finding async for finding in examine(server.new_url(), **server.options)]

    found = {finding.check: finding for finding in run(scenario())}
    assert {finding.verdict for finding in found.values()} == {"ok"}, found
    assert "BadDigest" in found["checksums"].detail
    assert found["lifecycle rules"].detail == "none"


def test_the_doctor_leaves_nothing_behind(opened, run):
    async def scenario():
        async with opened() as backend:
            async for _ in examine_backend(backend):
                pass
            return [info.key async for info in backend.list("")]

    assert run(scenario()) == []


class Bucket:
    """Answers as a bucket with these rules would; accepts every checksum."""

    def __init__(self, rules=(), versions=None):
        self.rules = list(rules)
        self.versions = versions
        self.keys = set()

    async def put_object(self, *, Key, **_):
        self.keys.add(Key)

    async def delete_object(self, *, Key, **_):
        self.keys.remove(Key)

    async def get_bucket_lifecycle_configuration(self, **_):
        return {"Rules": self.rules}

    async def get_bucket_versioning(self, **_):
        return {"Status": self.versions} if self.versions else {}


def seen(bucket, root="exp/store/", *, with_checksum=False):
    async def main():
        found = findings(bucket, "bucket", root, {}, with_checksum=with_checksum)
        return {check: (verdict, detail) async for check, verdict, detail in found}

    return asyncio.run(main())


EXPIRES = {"ID": "clean", "Status": "Enabled", "Expiration": {"Days": 30}}


@pytest.mark.parametrize(
    ("rule", "verdict"),
    [
        ({**EXPIRES, "Filter": {"Prefix": ""}}, "problem"),
        ({**EXPIRES, "Prefix": ""}, "problem"),
        ({**EXPIRES, "Filter": {"Prefix": "exp/"}}, "problem"),
        ({**EXPIRES, "Filter": {"Prefix": "exp/store/chunks/"}}, "problem"),
        ({**EXPIRES, "Filter": {"And": {"Prefix": "exp/", "ObjectSizeGreaterThan": 1}}}, "problem"),
        ({**EXPIRES, "Filter": {"Prefix": "exp/other/"}}, "ok"),
        ({**EXPIRES, "Filter": {"Tag": {"Key": "a", "Value": "b"}}}, "ok"),
        ({**EXPIRES, "Filter": {"Prefix": ""}, "Status": "Disabled"}, "ok"),
        ({"Status": "Enabled", "Filter": {}, "Transitions": [{"StorageClass": "GLACIER"}]}, "problem"),
        ({"Status": "Enabled", "Filter": {}, "Transitions": [{"StorageClass": "GLACIER_IR"}]}, "ok"),
        ({"Status": "Enabled", "Filter": {}, "NoncurrentVersionExpiration": {"NoncurrentDays": 1}}, "ok"),
    ],
)
def test_rules_that_would_take_the_stores_objects_are_problems(rule, verdict):
    found, detail = seen(Bucket([rule]))["lifecycle rules"]
    assert found == verdict, detail


def test_a_server_that_takes_wrong_checksums_is_a_problem_only_where_they_are_relied_on():
    bucket = Bucket()
    assert seen(bucket)["checksums"][0] == "unknown"
    assert seen(bucket, with_checksum=True)["checksums"][0] == "problem"
    assert bucket.keys == set()


def test_old_versions_are_mentioned():
    assert "noncurrent" in seen(Bucket(versions="Enabled"))["versions"][1]
