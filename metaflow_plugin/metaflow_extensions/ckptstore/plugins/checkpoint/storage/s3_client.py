"""An asynchronous S3 client that is configured as Metaflow's own is."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit

from metaflow.metaflow_config import S3_SERVER_SIDE_ENCRYPTION

__all__ = ["has_aiobotocore", "s3_options"]

# AWS's own endpoints are left to be found again: a given one changes how buckets are addressed.
_AWS_ENDPOINT = re.compile(r"s3[.a-z0-9-]*\.amazonaws\.com(\.cn)?")
_CARRIED = (
    "client_cert",
    "proxies",
    "proxies_config",
    "tcp_keepalive",
    "use_dualstack_endpoint",
    "use_fips_endpoint",
)
_DEFAULT_SIGNATURE = "s3v4"


def has_aiobotocore() -> bool:
    """Tell whether the asynchronous client is installed, in a version that its botocore goes with."""
    try:
        import aiobotocore.session  # noqa: F401
    except ImportError:
        return False
    return True


def s3_options(client: Any) -> dict[str, Any]:
    """Return the options of an S3 store that make its client from Metaflow's boto3 ``client``.

    Endpoint, region, certificates, proxies, addressing and credentials are
    those of the boto3 client, so they come from wherever Metaflow's come from:
    its configuration, a role, a client provider. Credentials are not copied:
    when they are refreshed, both see it. Hooks that a client provider puts on
    its client are not carried over.
    """
    return {
        "client_factory": _factory(client),
        "addressing_style": (client.meta.config.s3 or {}).get("addressing_style") or "auto",
        "sse": S3_SERVER_SIDE_ENCRYPTION or None,
    }


def _factory(client: Any) -> Callable[[Any], contextlib.AbstractAsyncContextManager[Any]]:
    @contextlib.asynccontextmanager
    async def make(config: Any) -> AsyncIterator[Any]:
        from aiobotocore.session import AioSession

        session = AioSession()
        credentials = client._get_credentials()
        if credentials is not None:
            session._credentials = _shared(credentials)
        endpoint = str(client.meta.endpoint_url)
        is_default = _AWS_ENDPOINT.fullmatch(urlsplit(endpoint).hostname or "")
        async with session.create_client(
            "s3",
            region_name=client.meta.region_name,
            endpoint_url=None if is_default else endpoint,
            verify=getattr(client._endpoint.http_session, "_verify", None),
            config=_config(client.meta.config, config),
        ) as made:
            yield made

    return make


def _config(theirs: Any, ours: Any) -> Any:
    """Return the store's configuration with what of Metaflow's concerns the network."""
    from aiobotocore.config import AioConfig

    carried = {name: getattr(theirs, name, None) for name in _CARRIED}
    if theirs.signature_version != _DEFAULT_SIGNATURE:
        carried["signature_version"] = theirs.signature_version
    merged = AioConfig(**{name: value for name, value in carried.items() if value}).merge(ours)
    merged.s3 = {**(theirs.s3 or {}), **ours.s3}
    return merged


class _Shared:
    """The credentials of a boto3 client, as aiobotocore asks for them."""

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials
        self.method = credentials.method

    async def get_frozen_credentials(self) -> Any:
        return self._credentials.get_frozen_credentials()

    async def get_account_id(self) -> Any:
        return getattr(await self.get_frozen_credentials(), "account_id", None)

    def get_deferred_property(self, name: str) -> Callable[[], Any]:
        """Older releases ask for the account in this way."""
        return self.get_account_id


class _Refreshable(_Shared):
    """Those that expire: a role's, a container's."""

    async def get_frozen_credentials(self) -> Any:
        credentials = self._credentials
        if credentials.refresh_needed():
            return await asyncio.to_thread(credentials.get_frozen_credentials)
        return credentials.get_frozen_credentials()

    async def _protected_refresh(self, is_mandatory: bool) -> None:
        """Get new ones now, whatever this machine's clock says: the storage has refused the old."""

        def renew() -> None:
            with self._credentials._refresh_lock:
                self._credentials._protected_refresh(is_mandatory=is_mandatory)

        await asyncio.to_thread(renew)


def _shared(credentials: Any) -> _Shared:
    return (_Refreshable if hasattr(credentials, "refresh_needed") else _Shared)(credentials)
