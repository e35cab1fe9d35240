"""What drops the iterator of a `for`: the code's own choice, or an exception."""

from __future__ import annotations

import contextlib
import signal
import sys

import pytest
from metaflow_extensions.ckptstore.plugins.checkpoint.loops.loop_exit import is_left_by_choice


class Watched:
    """An iterable whose iterator, held by nobody but the `for`, notes how it goes."""

    def __init__(self) -> None:
        self.by_choice: bool | None = None

    def __iter__(self):
        return Iterator(self)


class Iterator:
    def __init__(self, watched):
        self.watched = watched
        self.n = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.n += 1
        if self.n > 5:
            raise StopIteration
        return self.n

    def __del__(self):
        self.watched.by_choice = is_left_by_choice(sys._getframe(1))


class Bar:
    """A progress bar, as they are made."""

    def __init__(self, iterable):
        self.iterable = iterable

    def __iter__(self):
        try:
            for item in self.iterable:
                yield item
                self.last = item
        finally:
            self.closed = True


def passed_on(iterable):
    for item in iterable:  # noqa: UP028  # as generators are written
        yield item


def by_break(make):
    for n in make():
        if n == 3:
            break
    return n


def by_return(make):
    for n in make():
        if n == 3:
            return n
    return None


def by_return_of_a_constant(make):
    for n in make():
        if n == 3:
            return "x"
    return None


def by_break_from_with(make):
    for _ in make():
        with open("/dev/null"):
            break


def by_break_from_except(make):
    for _ in make():
        try:
            int("x")
        except ValueError as error:
            str(error)
            break


def by_break_from_finally(make):
    for _ in make():
        try:
            int("1")
        finally:
            break  # noqa: B012


def by_break_before_else(make):
    for n in make():
        if n == 3:
            break
    else:
        n = 0
    return n


def by_break_after_an_error_that_was_suppressed(make):
    for _ in make():
        try:
            with contextlib.suppress(ValueError):
                int("x")
        finally:
            n = 1
        if n:
            break


def by_raise(make):
    for n in make():
        if n == 3:
            raise ValueError(n)


def by_an_error_in_a_call(make):
    for n in make():
        int(f"x{n}")


def by_an_error_under_a_handler(make):
    try:
        for n in make():
            int(f"x{n}")
    except ValueError:
        pass


def by_a_bare_raise(make):
    for _ in make():
        try:
            int("x")
        except ValueError:
            raise


def by_an_error_through_finally(make):
    for _ in make():
        try:
            int("x")
        finally:
            n = 1
    return n


def by_an_error_through_with(make):
    for _ in make():
        with open("/dev/null"):
            int("x")


def by_an_error_in_a_handler(make):
    for _ in make():
        try:
            int("x")
        except ValueError as error:
            raise KeyError("y") from error


def by_an_error_whose_traceback_is_taken_away(make):
    for _ in make():
        try:
            int("x")
        except ValueError as error:
            error.__traceback__ = None
            raise


def by_an_exit(make):
    for _ in make():
        sys.exit(3)


BY_CHOICE = [
    by_break,
    by_return,
    by_return_of_a_constant,
    by_break_from_with,
    by_break_from_except,
    by_break_from_finally,
    by_break_before_else,
    by_break_after_an_error_that_was_suppressed,
]
BY_EXCEPTION = [
    by_raise,
    by_an_error_in_a_call,
    by_an_error_under_a_handler,
    by_a_bare_raise,
    by_an_error_through_finally,
    by_an_error_through_with,
    by_an_error_in_a_handler,
    by_an_error_whose_traceback_is_taken_away,
    by_an_exit,
]


# What is written around the items of a `for`, in C and in Python, held by nobody else.
WRAPS = [iter, Bar, lambda items: map(abs, items), lambda items: map(abs, Bar(items))]
WRAP_NAMES = ["bare", "bar", "map", "map-bar"]


@pytest.mark.parametrize("wrap", WRAPS, ids=WRAP_NAMES)
@pytest.mark.parametrize("leave", BY_CHOICE, ids=lambda leave: leave.__name__)
def test_break_and_return_are_choices(leave, wrap):
    watched = Watched()
    leave(lambda: wrap(watched))
    assert watched.by_choice is True


@pytest.mark.parametrize("wrap", [*WRAPS, passed_on], ids=[*WRAP_NAMES, "generator"])
@pytest.mark.parametrize("leave", BY_EXCEPTION, ids=lambda leave: leave.__name__)
def test_an_exception_is_no_choice(leave, wrap):
    watched = Watched()
    with contextlib.suppress(ValueError, KeyError, SystemExit):
        leave(lambda: wrap(watched))
    assert watched.by_choice is False


def test_the_end_of_the_items_is_no_choice():
    watched = Watched()
    for _ in watched:
        pass
    assert watched.by_choice is False


def test_an_iterator_that_the_function_holds_tells_nothing():
    watched = Watched()

    def held():
        items = iter(watched)
        for _ in items:
            break

    held()
    assert watched.by_choice is False


def test_an_exception_that_somebody_keeps_from_the_same_frame_makes_it_unsure():
    watched, kept = Watched(), []
    try:
        int("x")
    except ValueError as error:
        kept.append(error)
    for _ in watched:
        break
    assert kept
    assert watched.by_choice is False


@pytest.mark.parametrize("n_instructions", range(1, 60))
def test_a_signal_is_no_choice_wherever_it_comes(n_instructions):
    """The handler raises between any two instructions of the body, whose statements end with a pop."""

    class Interrupt(Exception):
        pass

    left = n_instructions

    def count(frame, event, arg):
        nonlocal left
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == 0:
                signal.raise_signal(signal.SIGUSR1)
        return count

    def interrupt(*_):
        raise Interrupt

    watched = Watched()

    def body():
        for n in watched:
            abs(n)
            str(n)
            abs(n)
            if n == 4:
                return

    before = signal.signal(signal.SIGUSR1, interrupt)
    tracing = sys.gettrace()
    sys.settrace(
        lambda frame, event, arg: count(frame, event, arg) if frame.f_code is body.__code__ else None
    )
    interrupted = False
    try:
        body()
    except Interrupt:
        interrupted = True
    finally:
        sys.settrace(tracing)
        signal.signal(signal.SIGUSR1, before)
    if watched.by_choice is not None:
        assert watched.by_choice is not interrupted
