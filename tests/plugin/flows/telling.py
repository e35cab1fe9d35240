"""How a flow of the tests tells what it saw: one JSON line per fact, also from a process that dies."""

import json
import os


def tell(**facts):
    with open(os.environ["TOLD"], "a") as told:
        told.write(json.dumps(facts) + "\n")


def error_of(call, *args, **kwargs):
    """Return what the call raises as ``Class: message``, or None."""
    try:
        call(*args, **kwargs)
    except Exception as error:  # noqa: BLE001  # the test looks at what it is
        return f"{type(error).__name__}: {error}"
    return None
