"""The ``ckptstore`` command; what it needs comes with ``ckptstore[cli]``."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command, or say in one line what is missing."""
    try:
        from ckptstore.cli import command
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] == "ckptstore":
            raise
        sys.exit(f'The ckptstore command needs {exc.name!r}: python -m pip install "ckptstore[cli]"')
    command(prog_name="ckptstore")


if __name__ == "__main__":
    main()
