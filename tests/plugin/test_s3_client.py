"""The S3 client of a store is configured as Metaflow's own, and shares its credentials."""

from __future__ import annotations

import datetime
from typing import Any

import boto3
import pytest
import seaweed
from botocore import UNSIGNED
from botocore.config import Config
from botocore.credentials import RefreshableCredentials
from botocore.session import Session
from metaflow_extensions.ckptstore.plugins.checkpoint.storage.s3_client import s3_options

from ckptstore import CheckpointStore

OURS: dict[str, Any] = {
    "retries": {"total_max_attempts": 1, "mode": "standard"},
    "s3": {"payload_signing_enabled": False, "addressing_style": "auto"},
}


def made(run, client, look):
    """Return what ``look`` sees of the client that is made from Metaflow's ``client``."""
    from aiobotocore.config import AioConfig

    async def main():
        async with s3_options(client)["client_factory"](AioConfig(**OURS)) as ours:
            return await look(ours)

    return run(main())


async def itself(ours):
    return ours


def client_of(**options: Any) -> Any:
    return boto3.client("s3", aws_access_key_id="k", aws_secret_access_key="s", **options)


def test_endpoint_region_certificates_and_addressing_are_theirs(run, tmp_path):
    certificates = tmp_path / "ca.pem"
    certificates.write_text("")
    theirs = client_of(
        endpoint_url="https://minio.example:9000",
        region_name="eu-west-9",
        verify=False,
        config=Config(s3={"addressing_style": "virtual"}, proxies={"https": "http://proxy:3128"}),
    )
    ours = made(run, theirs, itself)
    assert ours.meta.endpoint_url == "https://minio.example:9000"
    assert ours.meta.region_name == "eu-west-9"
    assert ours.meta.config.proxies == {"https": "http://proxy:3128"}
    assert s3_options(theirs)["addressing_style"] == "virtual"


def test_the_stores_own_settings_stay(run):
    theirs = client_of(
        region_name="eu-west-1", config=Config(retries={"max_attempts": 10, "mode": "adaptive"})
    )
    config = made(run, theirs, itself).meta.config
    assert config.retries["total_max_attempts"] == 1
    assert config.s3["payload_signing_enabled"] is False


@pytest.mark.parametrize("region", ["us-east-1", "eu-west-1", "cn-north-1"])
def test_endpoints_of_aws_are_found_again_so_that_buckets_keep_their_host_names(run, region):
    theirs = client_of(region_name=region)

    async def look(ours):
        return await ours.generate_presigned_url("get_object", Params={"Bucket": "the-bucket", "Key": "k"})

    assert made(run, theirs, look).startswith("https://the-bucket.s3")


def test_a_public_bucket_is_read_without_credentials(run):
    theirs = boto3.client("s3", region_name="us-east-1", config=Config(signature_version=UNSIGNED))

    async def look(ours):
        return await ours.generate_presigned_url("get_object", Params={"Bucket": "the-bucket", "Key": "k"})

    assert "Signature" not in made(run, theirs, look)


def test_encryption_is_what_metaflow_is_told(monkeypatch):
    name = "metaflow_extensions.ckptstore.plugins.checkpoint.storage.s3_client.S3_SERVER_SIDE_ENCRYPTION"
    monkeypatch.setattr(name, "AES256")
    assert s3_options(client_of(region_name="us-east-1"))["sse"] == "AES256"


class Role:
    """Gives credentials that expire, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.life_s = 3600

    def __call__(self) -> dict[str, str]:
        self.asked += 1
        expiry = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=self.life_s)
        return {
            "access_key": seaweed.ACCESS_KEY,
            "secret_key": seaweed.SECRET_KEY,
            "token": "",
            "expiry_time": expiry.isoformat(),
        }

    def client(self) -> Any:
        server = seaweed.server()
        session = Session()
        session._credentials = RefreshableCredentials.create_from_metadata(self(), self, "assume-role")
        return boto3.session.Session(botocore_session=session).client(
            "s3", endpoint_url=server.endpoint_url, region_name="us-east-1"
        )


def test_credentials_of_a_role_are_shared_and_asked_for_once():
    role = Role()
    theirs = role.client()
    url = seaweed.server().new_url()
    with CheckpointStore.open(url, **s3_options(theirs)) as store:
        saved = store.save("a/b", {"x": 1})
        assert store.load(saved)["x"] == 1
    assert role.asked == 1


def test_credentials_that_are_about_to_expire_are_renewed_for_both():
    role = Role()
    role.life_s = 5
    theirs = role.client()
    role.life_s = 3600
    url = seaweed.server().new_url()
    with CheckpointStore.open(url, **s3_options(theirs)) as store:
        store.save("a/b", {"x": 1})
        store.save("a/b", {"x": 2})
        theirs.list_objects_v2(Bucket=seaweed.BUCKET, MaxKeys=1)
    assert role.asked == 2


def test_credentials_that_the_storage_refused_are_renewed_whatever_the_clock_says(run):
    role = Role()
    theirs = role.client()

    async def look(ours):
        await ours._get_credentials()._protected_refresh(is_mandatory=True)

    made(run, theirs, look)
    assert role.asked == 2
