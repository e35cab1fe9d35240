"""What all commands share: where the store is, how errors end, and the question before a deletion."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NoReturn, TypeVar

import click

from ckptstore.cli.datastore import datastore_opening
from ckptstore.cli.output import safe
from ckptstore.config import StoreConfig
from ckptstore.errors import BackendError, CheckpointStoreError, ConfigError, NotFoundError
from ckptstore.store import AsyncCheckpointStore

__all__ = [
    "DRY_RUN",
    "EXIT_CODES",
    "JSON",
    "PROBLEM",
    "YES",
    "Where",
    "ask",
    "checked_errors",
    "note",
    "on_store",
    "parse_options",
    "run",
]

F = TypeVar("F", bound=Callable[..., Any])

PROBLEM, USAGE, NOT_FOUND, STORAGE, INTERRUPTED = 1, 2, 3, 4, 130
EXIT_CODES = """\b
Exit codes:
    0  done, and all is well
    1  a problem was found: damage, or something that is not safe to do
    2  wrong usage, or a question was not answered with yes
    3  the store, collection or checkpoint is not there
    4  the storage failed, or refused
  130  interrupted
"""

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
YES = click.option("--yes", is_flag=True, help="Do not ask.")
DRY_RUN = click.option("--dry-run", is_flag=True, help="Change nothing, only say what would be done.")


@dataclass(frozen=True, slots=True)
class Where:
    """A store as it is named on the command line; ``url`` None: the datastore that Metaflow is configured for."""

    url: str | None
    options: tuple[str, ...] = ()
    signing_key: str | None = None
    exclusive: bool = False

    def opening(self) -> tuple[Any, dict[str, Any]]:
        """Return what a store is opened with. Not on a loop: it may import Metaflow. Raises ConfigError."""
        options = parse_options(self.options)
        if self.url is not None:
            url: Any = self.url
        elif options:
            raise ConfigError("--option goes with a URL: a datastore's options are Metaflow's configuration")
        else:
            url, options = datastore_opening()
        if self.signing_key is not None or self.exclusive:
            config = options.get("config", StoreConfig())
            config = replace(config, signing_key=self.signing_key, exclusive=self.exclusive)
            options = {**options, "config": config}
        return url, options

    @property
    def words(self) -> str:
        """What names the store on a command line."""
        return "--datastore" if self.url is None else self.url


def on_store(addresses: str, *, least: int = 0, most: int | None = 1) -> Callable[[F], F]:
    """Give a command the arguments that name a store, and ``least`` to ``most`` ``addresses`` in it.

    The command is called with ``where``, a Where, and ``addresses``.
    """

    def decorate(command: F) -> F:
        @click.argument("words", nargs=-1, metavar=f"URL {addresses}".strip())
        @click.option(
            "--datastore", is_flag=True, help="Instead of URL: the datastore Metaflow is configured for."
        )
        @click.option(
            "--option", "options", multiple=True, metavar="NAME=VALUE", help="An option of the backend."
        )
        @click.option(
            "--signing-key",
            metavar="FILE",
            help="The keys that manifests must be signed with, as StoreConfig.signing_key.",
        )
        @click.option("--exclusive", is_flag=True, help="No other process uses the store: for those made so.")
        @functools.wraps(command)
        def wrapped(
            words: tuple[str, ...],
            datastore: bool,
            options: tuple[str, ...],
            signing_key: str | None,
            exclusive: bool,
            **rest: Any,
        ) -> Any:
            if not datastore and not words:
                raise click.UsageError(
                    "Missing argument 'URL'; --datastore is the one Metaflow is configured for."
                )
            url, given = (None, words) if datastore else (words[0], words[1:])
            if len(given) < least or (most is not None and len(given) > most):
                raise click.UsageError(
                    f"It takes {'--datastore' if datastore else 'URL'} {addresses}".rstrip()
                )
            return command(where=Where(url, options, signing_key, exclusive), addresses=given, **rest)

        return wrapped  # type: ignore[return-value]  # click calls it by the names of its own parameters

    return decorate


def run(where: Where, main: Callable[[AsyncCheckpointStore], Awaitable[int | None]]) -> NoReturn:
    """Open the store, run ``main`` over it, and end the process with its exit code; None is 0."""

    async def over(opening: tuple[Any, dict[str, Any]]) -> int | None:
        url, options = opening
        async with await AsyncCheckpointStore.open(url, create=False, **options) as store:
            return await main(store)

    with checked_errors():
        code = asyncio.run(over(where.opening()))
    sys.exit(code or 0)


@contextmanager
def checked_errors() -> Iterator[None]:
    """End the process for an error of ours: what it says, and the exit code for its kind; no traceback."""
    try:
        yield
    except CheckpointStoreError as exc:
        click.echo(safe(f"{type(exc).__name__}: {exc}"), err=True)
        sys.exit(_exit_code(exc))
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)


def note(text: str) -> None:
    """Say something to the person, beside what the command prints."""
    click.echo(safe(text), err=True)


def ask(question: str, *, yes: bool) -> None:
    """Return if the person agrees. Raises ConfigError if not, and where nobody can be asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"{question} Nobody can be asked here: say --yes, or look with --dry-run")
    if not click.confirm(safe(question), err=True):
        raise ConfigError("nothing was done: the question was not answered with yes")


def parse_options(options: tuple[str, ...]) -> dict[str, Any]:
    """Return backend options by name. Raises ConfigError that shows no value: it may be a secret."""
    parsed: dict[str, Any] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError("--option takes NAME=VALUE, and NAME is that of an option of the backend")
        parsed[name] = {"true": True, "false": False}.get(value, value)
    return parsed


def _exit_code(exc: CheckpointStoreError) -> int:
    for kind, code in ((ConfigError, USAGE), (NotFoundError, NOT_FOUND), (BackendError, STORAGE)):
        if isinstance(exc, kind):
            return code
    return PROBLEM
