"""Faults that a flow injects into its own process: the alarm of @timeout, or death, in the middle of a save."""

import asyncio
import os
import signal
import sys
import threading
import time

from metaflow.metaflow_config import DEFAULT_DATASTORE

if DEFAULT_DATASTORE == "s3":
    from ckptstore.backends.s3 import S3Backend as Backend
else:
    from ckptstore.backends.local import LocalBackend as Backend


def alarm_in_the_middle_of_a_save(inside):
    """Hold all commits back, ring as @timeout's clock does when the main thread is in this function, and let go."""
    written, let_go = threading.Event(), threading.Event()
    handler, main = signal.getsignal(signal.SIGALRM), threading.main_thread().ident

    async def hold(put, *args, **kwargs):
        written.set()
        await asyncio.to_thread(let_go.wait)
        return await put(*args, **kwargs)

    def ringing(signum, frame):
        let_go.set()
        handler(signum, frame)

    def ring():
        written.wait()
        while inside not in _functions_of(main):
            time.sleep(0.001)
        signal.pthread_kill(main, signal.SIGALRM)

    _around_put(hold)
    signal.signal(signal.SIGALRM, ringing)
    threading.Thread(target=ring, daemon=True).start()


def die_after_a_chunk():
    """Be killed, as no handler can see, once the first chunk of a save is written."""

    async def die(put, backend, key, *args, **kwargs):
        stored = await put(backend, key, *args, **kwargs)
        if key.startswith("chunks/"):
            os.kill(os.getpid(), signal.SIGKILL)
        return stored

    _around_put(die)
    if hasattr(Backend, "_put_staged"):  # the chunks of a local store are written here
        put_staged = Backend._put_staged

        def putting(*args):
            put_staged(*args)
            os.kill(os.getpid(), signal.SIGKILL)

        Backend._put_staged = putting


def die_after_the_commit():
    """Be killed so once the manifest of a save is written."""

    async def die(put, backend, key, *args, **kwargs):
        stored = await put(backend, key, *args, **kwargs)
        if key.startswith("manifests/"):
            os.kill(os.getpid(), signal.SIGKILL)
        return stored

    _around_put(die)


def hold_all_commits():
    """Let no save of this process come to its end."""

    async def hold(put, backend, key, *args, **kwargs):
        if key.startswith("manifests/"):
            await asyncio.Event().wait()
        return await put(backend, key, *args, **kwargs)

    _around_put(hold)


def _functions_of(thread):
    frame = sys._current_frames().get(thread)
    while frame is not None:
        yield frame.f_code.co_name
        frame = frame.f_back


def _around_put(around):
    for verb in ("put", "put_in_time"):
        if verb in vars(Backend):  # else it is the other one, after a check
            setattr(Backend, verb, _wrapped(getattr(Backend, verb), around))


def _wrapped(put, around):
    async def putting(*args, **kwargs):
        return await around(put, *args, **kwargs)

    return putting
