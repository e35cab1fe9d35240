"""Hearing SIGTERM without dying of it at once."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import weakref
from types import FrameType
from typing import Any

__all__ = ["SigtermHook"]

_AGAIN_S = 0.1


class SigtermHook:
    """Puts SIGTERM off until ``let_go``; then it does what it would have done without.

    The signal's number is written to ``mouth``, a socket, as soon as it comes: a
    handler in Python waits for the main thread to return from whatever it is in.
    So are those of other signals, as a process has one descriptor for all.

    Whoever installed a handler before gets the signal in the end, or the
    process dies by it if nobody did. A forked child is as if there was no hook.
    """

    def __init__(self, mouth: socket.socket) -> None:
        self._mouth = mouth
        self._pid = os.getpid()
        self._before: Any = None
        self._descriptor_before = -1
        self.is_heard = False
        """Whether it came, and waits."""
        self._may_go = False
        self._is_over = threading.Event()
        """Set once there is nothing left to let go."""

    def install(self) -> str | None:
        """Begin to listen; return why not, if that cannot be."""
        if threading.current_thread() is not threading.main_thread():
            return "the step does not run in the main thread"
        self._before = signal.getsignal(signal.SIGTERM)
        if self._before is None:
            return "a handler is there that was not installed by Python"
        self._descriptor_before = signal.set_wakeup_fd(self._mouth.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._handle)
        after_fork = weakref.WeakMethod(self._after_fork)
        os.register_at_fork(after_in_child=lambda: (forget := after_fork()) and forget())
        return None

    def pass_on(self, received: bytes) -> None:
        """Give the numbers of signals to whoever had them written to a descriptor before."""
        if self._descriptor_before != -1:
            with contextlib.suppress(OSError):
                os.write(self._descriptor_before, received)

    def let_go(self) -> None:
        """Let the signal take its course, from a thread beside the main one, which does it as soon as it can.

        Returns when it has begun to.
        """
        self._may_go = True
        os.kill(self._pid, signal.SIGTERM)
        # The main thread may miss it: one that comes as it begins to wait for a lock does not wake it up.
        while not self._is_over.wait(_AGAIN_S):
            os.kill(self._pid, signal.SIGTERM)

    def remove(self) -> None:
        """Stop listening. A signal that was heard takes its course now. Idempotent.

        Only the main thread can do that; elsewhere the hook stays, and lets signals go on.
        """
        self._may_go = True
        if threading.current_thread() is not threading.main_thread():
            return
        if self.is_heard:
            self._take_course(None)
        else:
            self._is_over.set()
            self._step_back()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._may_go:
            self._take_course(frame)
            return
        self.is_heard = True
        # Somebody may have taken the descriptor for signals over, as asyncio does.
        with contextlib.suppress(OSError):
            self._mouth.send(bytes([number]))

    def _take_course(self, frame: FrameType | None) -> None:
        self.is_heard = False
        self._is_over.set()
        self._step_back()
        if callable(self._before):
            self._before(signal.SIGTERM, frame)
        elif self._before == signal.SIG_DFL:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)

    def _step_back(self) -> None:
        # What others have put in our place since stays.
        if signal.getsignal(signal.SIGTERM) == self._handle:
            signal.signal(signal.SIGTERM, self._before)
        there = signal.set_wakeup_fd(-1)
        back = self._descriptor_before if there == self._mouth.fileno() else there
        if back != -1:
            with contextlib.suppress(ValueError, OSError):  # it was closed since
                signal.set_wakeup_fd(back)

    def _after_fork(self) -> None:
        # The descriptor is shared: the child's signals would be heard by the parent.
        self._may_go = True
        self._step_back()
        self._mouth.close()
