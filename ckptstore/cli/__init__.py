"""The ``ckptstore`` command: tables for people, ``--json`` for programs, exit codes for both."""

from __future__ import annotations

import click

from ckptstore import __version__
from ckptstore.cli.addresses import ADDRESSES
from ckptstore.cli.app import EXIT_CODES
from ckptstore.cli.change import gc, pin, rm, undelete, unpin
from ckptstore.cli.check import doctor, verify
from ckptstore.cli.copies import copy
from ckptstore.cli.look import diff, du, inspect, ls

__all__ = ["command"]


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    help=f"Look after checkpoint stores.\n\n{ADDRESSES}\n\n{EXIT_CODES}",
)
@click.version_option(__version__)
def command() -> None:
    pass


for _command in (ls, inspect, diff, verify, gc, rm, undelete, pin, unpin, du, copy, doctor):
    command.add_command(_command)
