"""Listings of servers that sort whole keys, or folder by folder, in pages of any size."""

from __future__ import annotations

import datetime
import random

import pytest

from ckptstore.backends._s3_listing import Listing
from ckptstore.errors import BackendProtocolError


class Bucket:
    """Answers as a server does: ``by_folder`` as SeaweedFS, else as S3; ``asked`` counts the requests."""

    def __init__(self, keys, *, by_folder, page_size, told=True):
        self.keys = sorted(keys, key=self.folder_order if by_folder else None)
        self.by_folder = by_folder
        self.page_size = page_size
        self.told = told
        self.asked = 0

    @staticmethod
    def folder_order(key):
        return key.replace("/", "\0")

    async def send(self, params):
        self.asked += 1
        prefix, delimiter = params["Prefix"], params.get("Delimiter")
        order = self.folder_order if self.by_folder else str
        entries = []
        for key in self.keys:
            if not key.startswith(prefix):
                continue
            slash = key.find("/", len(prefix)) if delimiter else -1
            entry = key if slash < 0 else key[: slash + 1]
            if entry not in entries:
                entries.append(entry)
        after = params.get("ContinuationToken", params.get("StartAfter", ""))
        entries = [entry for entry in entries if order(entry) > order(after)]
        page = entries[: self.page_size]
        at = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
        answer = {
            "Name": "bucket",
            "KeyCount": len(page),
            "IsTruncated": len(entries) > len(page),
            "Contents": [
                {"Key": key, "Size": 1, "LastModified": at} for key in page if not key.endswith("/")
            ],
            "CommonPrefixes": [{"Prefix": key} for key in page if key.endswith("/")],
            "ResponseMetadata": {
                "HTTPHeaders": {"server": "SeaweedFS 4"} if self.by_folder and self.told else {}
            },
        }
        if answer["IsTruncated"]:
            answer["NextContinuationToken"] = page[-1]
        return answer


def listed(run, bucket, prefix="", after=""):
    async def main():
        listing = Listing(bucket.send, "bucket", prefix, "cannot list")
        return [info.key async for info in listing.objects(after)]

    return run(main())


@pytest.mark.parametrize("page_size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("by_folder", [False, True])
def test_every_listing_is_a_sorted_one(run, by_folder, page_size):
    rng = random.Random(page_size)

    def part():
        return "".join(rng.choice("ab.+~-_0") for _ in range(rng.randint(1, 2)))

    keys = {f"{part()}/{part()}/x{part()}" for _ in range(40)} | {f"{part()}.json" for _ in range(5)}
    for _ in range(60):
        bucket = Bucket(keys, by_folder=by_folder, page_size=page_size)
        prefix = rng.choice(sorted(keys))[: rng.randint(0, 6)]
        after = rng.choice(["", *sorted(keys), prefix + "~"])[: rng.randint(0, 8)]
        expected = sorted(key for key in keys if key.startswith(prefix) and key > after)
        assert listed(run, bucket, prefix, after) == expected


def test_a_flat_listing_costs_a_request_a_page(run):
    keys = [f"a/{n:03}" for n in range(25)]
    bucket = Bucket(keys, by_folder=False, page_size=10)
    assert listed(run, bucket, "a/") == keys
    assert bucket.asked == 3


def test_a_server_that_does_not_say_that_it_sorts_by_folder_is_found_out(run):
    keys = ["a/1", "a/2", "a-/1", "b/1"]
    assert listed(run, Bucket(keys, by_folder=True, page_size=10, told=False)) == sorted(keys)
    with pytest.raises(BackendProtocolError, match="comes after"):
        listed(run, Bucket(keys, by_folder=True, page_size=2, told=False))
