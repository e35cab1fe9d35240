"""The machine is about to go away: hearing of it in time, and doing what can still be done."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable

from ..saving import Saver
from .marks import Marks
from .sigterm import SigtermHook

__all__ = ["Preemption"]

POLL_S = 1.0
"""How often is looked for a notice. Metaflow itself asks the machine every five seconds."""
_LOOK = 0
"""What is sent to wake the watcher; no signal has this number."""


class Preemption:
    """Watches for the end of the machine in one thread, for the time that the step runs.

    A notice is a file that comes into being, as Metaflow writes it on Kubernetes
    and AWS Batch; a signal is heard if the user asked for it. Either way what is
    in flight is finished, and then with ``saves_mark`` the last mark is saved,
    never the attributes as they are in that moment. The step itself goes on. It
    reads ``is_noticed``.
    """

    def __init__(
        self,
        saver: Saver,
        marks: Marks,
        *,
        saves_mark: bool,
        log: Callable[[str], None],
    ) -> None:
        self.is_noticed = False
        """Whether the end was announced."""
        self._saver = saver
        self._marks = marks
        self._saves_mark = saves_mark
        self._log = log
        self._notice: str | None = None
        self._hook: SigtermHook | None = None
        self._thread: threading.Thread | None = None
        self._is_stopping = False
        self._sockets: tuple[socket.socket, ...] = ()
        self._pid = os.getpid()

    def start(self, *, notice: str | None, sigterm: bool) -> None:
        """Watch for a file of this path and, with ``sigterm``, for the signal; nothing if there is neither."""
        if notice is None and not sigterm:
            return
        self._sockets = self._ears, self._mouth = socket.socketpair()
        self._mouth.setblocking(False)
        self._notice = notice
        if sigterm:
            hook = SigtermHook(self._mouth)
            why_not = hook.install()
            if why_not is None:
                self._hook = hook
            else:
                self._log(f"SIGTERM is not heard: {why_not}")
        self._thread = threading.Thread(target=self._watch, daemon=True, name="ckptstore-preemption")
        self._thread.start()

    def marked(self) -> None:
        """Take note of a new mark: after a notice it is saved at once."""
        if self.is_noticed and self._thread is not None and self._pid == os.getpid():
            self._wake()

    def stop(self) -> None:
        """Wait for what is being done, and watch no longer. Idempotent."""
        if self._thread is None or self._pid != os.getpid():
            return
        self._is_stopping = True
        self._wake()
        self._thread.join()
        self._thread = None

    def release(self) -> None:
        """Hear no signal any more: one that came takes its course now. Idempotent; after ``stop``."""
        hook, self._hook = self._hook, None
        sockets, self._sockets = self._sockets, ()
        try:
            if hook is not None and self._pid == os.getpid():
                hook.remove()
        finally:
            for one in sockets:
                one.close()

    def _wake(self) -> None:
        # Where there is no room for one more word, it is about to look anyway.
        with contextlib.suppress(BlockingIOError):
            self._mouth.send(bytes([_LOOK]))

    def _watch(self) -> None:
        hook = self._hook
        while not self._is_stopping:
            is_polling = self._notice is not None and not self.is_noticed
            self._ears.settimeout(POLL_S if is_polling else None)
            signals = self._receive()
            if hook is not None and (signal.SIGTERM in signals or hook.is_heard):
                try:
                    self._respond("SIGTERM")
                finally:
                    hook.let_go()
                hook = None
            elif is_polling and self._notice is not None and os.path.exists(self._notice):
                self._respond("a notice that the machine goes away")
            elif self.is_noticed:
                self._save_mark()

    def _receive(self) -> bytes:
        """Wait for signals to be heard, for a word or for the next look, and return the signals' numbers."""
        received = b""
        with contextlib.suppress(TimeoutError):
            received = self._ears.recv(4096)
        signals = received.replace(bytes([_LOOK]), b"")
        if self._hook is not None and signals:
            self._hook.pass_on(signals)
        return signals

    def _respond(self, what: str) -> None:
        self.is_noticed = True
        self._log(f"{what}: what is being saved is finished")
        # An error is for the step to see, at its next save or at its end.
        self._saver.defer(self._saver.finish())
        if self._saves_mark and self._marks.is_empty:
            self._log("there is no mark to save: current.checkpoint.mark() was not called")
        self._save_mark()

    def _save_mark(self) -> None:
        if not self._saves_mark:
            return
        try:
            self._marks.save()
        except Exception as error:  # noqa: BLE001  # the border of a thread
            self._log(f"NOT saved, the last mark: {type(error).__name__}: {error}")
