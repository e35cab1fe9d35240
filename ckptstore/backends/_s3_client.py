"""The aiobotocore client of a store: made once, tuned, and without a mind of its own about redirects and retries."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import logging
from concurrent.futures import Executor
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession

from ckptstore._tasks import in_worker
from ckptstore.backends._s3_options import S3Options, is_loopback

__all__ = ["S3Client"]

_log = logging.getLogger("ckptstore")


class _Unredirected:
    """An HTTP session that hands a redirect to the caller instead of following it."""

    def __init__(self, session: Any) -> None:
        self._session = session

    async def request(self, method: str, **options: Any) -> Any:
        return await self._session.request(method, allow_redirects=False, **options)


class _HTTPSession(AIOHTTPSession):  # type: ignore[misc]  # aiobotocore has no types
    """aiobotocore's own follows redirects: to any host, with the body and the session token."""

    async def _get_session(self, proxy_url: str | None) -> _Unredirected:
        return _Unredirected(await super()._get_session(proxy_url))


class S3Client:
    """An open client, its credentials, and the endpoint it talks to."""

    def __init__(self) -> None:
        self._stack = contextlib.AsyncExitStack()
        self._refresh_lock = asyncio.Lock()
        self._credentials: Any = None
        self.api: Any = None
        self.generation = 0
        """How often the credentials were renewed; see ``renew``."""

    async def open(self, options: S3Options, *, max_connections: int, executor: Executor) -> None:
        """Make the client. No request is sent, unless credentials have to be asked for."""
        config = _config(options, max_connections)
        try:
            if options.client_factory is not None:
                self.api = await self._stack.enter_async_context(options.client_factory(config))
                self._credentials = self.api._get_credentials()
            else:
                await self._open_session(options, config, executor)
        except BaseException:
            await self.aclose()
            raise
        self.api.meta.events.register("request-created.s3.PutObject", _expect_nothing)
        self.api.meta.events.register("before-call.s3.DeleteObjects", _with_md5)
        if ".amazonaws." not in self.endpoint_url:
            self.api.meta.events.register("before-call.s3", _stay_here)
        if self.endpoint_url.startswith("http://") and not is_loopback(self.endpoint_url):
            _log.warning(
                "the S3 endpoint %s is plain http: data and requests can be read and changed on their way",
                self.endpoint_url,
            )

    @property
    def endpoint_url(self) -> str:
        """The endpoint that the options and the AWS configuration led to."""
        return str(self.api.meta.endpoint_url)

    async def renew(self, generation: int) -> bool:
        """Get new credentials in the place of those of ``generation``; tell whether there are new ones.

        Many requests may find out at once that their credentials have expired:
        the first asks for new ones, the others wait for it.

        Raises what the provider of the credentials raises.
        """
        async with self._refresh_lock:
            if generation != self.generation:
                return True
            if not hasattr(self._credentials, "_protected_refresh"):
                return False  # static: nobody can renew them
            # The storage's clock decides what has expired; botocore would ask its own first.
            await self._credentials._protected_refresh(is_mandatory=True)
            self.generation += 1
            return True

    async def aclose(self) -> None:
        """Close the connections. Idempotent."""
        await self._stack.aclose()

    async def _open_session(self, options: S3Options, config: Any, executor: Executor) -> None:
        session = AioSession(profile=options.profile)
        # Hundreds of kilobytes of JSON, which would hold up the loop.
        await in_worker(executor, _load_models, session)
        self.api = await self._stack.enter_async_context(
            session.create_client(
                "s3",
                region_name=options.region,
                endpoint_url=options.endpoint_url,
                verify=options.verify,
                aws_access_key_id=options.access_key_id,
                aws_secret_access_key=options.secret_access_key,
                aws_session_token=options.session_token,
                config=config,
            )
        )
        self._credentials = self.api._get_credentials()


def _config(options: S3Options, max_connections: int) -> Any:
    return AioConfig(
        connect_timeout=options.connect_timeout_s,
        read_timeout=options.read_timeout_s,
        max_pool_connections=max_connections,
        # Retries are the store's own: the SDK knows neither short bodies nor our deadlines.
        retries={"total_max_attempts": 1, "mode": "standard"},
        # Our digests do that work, and hashing twice would cost more than sending.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"payload_signing_enabled": False, "addressing_style": options.addressing_style},
        http_session_cls=_HTTPSession,
        user_agent_extra="ckptstore",
    )


def _expect_nothing(request: Any, **_: Any) -> None:
    """Send the body at once: aiohttp would wait for ever where a server knows no 100-continue."""
    if "Expect" in request.headers:
        del request.headers["Expect"]


def _with_md5(params: Any, **_: Any) -> None:
    """Send the digest that S3 once required here, beside the newer one: many servers still do."""
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode()


def _stay_here(params: Any, **_: Any) -> None:
    """Tell botocore that it has been redirected already, so that it does not look for the bucket's AWS region."""
    params["context"].setdefault("s3_redirect", {})["redirected"] = True


def _load_models(session: Any) -> None:
    """Read what ``create_client`` is going to need; the session's loader keeps it."""
    loader = session.get_component("data_loader")
    for name in ("service-2", "endpoint-rule-set-1"):
        loader.load_service_model("s3", name)
    for name in ("endpoints", "partitions", "sdk-default-configuration"):
        loader.load_data(name)
