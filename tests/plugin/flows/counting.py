"""The requests that a flow's own process sends to S3, counted where they leave it."""

import contextlib

from botocore.httpsession import URLLib3Session

SESSIONS = [URLLib3Session]
with contextlib.suppress(ImportError):
    from aiobotocore.httpsession import AIOHTTPSession

    SESSIONS.append(AIOHTTPSession)


@contextlib.contextmanager
def counted():
    """Collect ``(method, path)`` of each request of the block, as asynchronous and blocking clients send them."""
    requests = []
    with contextlib.ExitStack() as stack:
        for session in SESSIONS:
            stack.enter_context(_watched(session, requests))
        yield requests


@contextlib.contextmanager
def _watched(session, requests):
    send = session.send

    def sending(self, request):
        requests.append((request.method, request.url.partition("?")[0].partition("/mf.ckptstore")[2]))
        return send(self, request)

    session.send = sending
    try:
        yield
    finally:
        session.send = send
