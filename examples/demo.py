"""Run `train_numpy.py` in a fresh datastore and tell what happened.

    python examples/demo.py

Exits with 1 if the training that crashed and resumed did not end with the very
weights of an uninterrupted one.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

FLOW = Path(__file__).with_name("train_numpy.py")
TOLD = ("found", "restored")


def main():
    with tempfile.TemporaryDirectory(prefix="ckptstore-demo-") as folder:
        os.environ |= {
            "METAFLOW_HOME": folder,
            "METAFLOW_DATASTORE_SYSROOT_LOCAL": folder,
            "METAFLOW_DEFAULT_DATASTORE": "local",
            "METAFLOW_DEFAULT_METADATA": "local",
            "USER": os.environ.get("USER", "").replace("root", "") or "demo",
        }
        print(f"Training in {folder}; it will die three times.\n")
        run_id_file = Path(folder, "run_id")
        if not run_flow(run_id_file):
            return 1

        from metaflow import Run, namespace

        namespace(None)
        result = Run(f"TrainNumpy/{run_id_file.read_text()}").data
        print_table(result)
        return 0 if result.identical else 1


def run_flow(run_id_file):
    """Run the flow, show what its checkpoints say, and return whether it succeeded."""
    command = [sys.executable, "-u", str(FLOW), "--no-pylint", "run", "--run-id-file", str(run_id_file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        log, saved = [], 0
        for line in process.stdout:
            log.append(line)
            message = line.partition("(pid ")[2].partition("] ")[2].rstrip()
            saved += message.startswith("[@checkpoint] saved")
            if message.startswith("Task failed") or (saved and "finished successfully" in message):
                print(f"  ... {saved} checkpoints saved" + (", then it died" if "failed" in message else ""))
                saved = 0
            elif message.removeprefix("[@checkpoint] ").startswith(TOLD):
                print("  " + message)
    if process.returncode:
        print("".join(log[-60:]), file=sys.stderr)
    return process.returncode == 0


def print_table(result):
    line = "{:>7}  {:<14}  {:>11}  {:>9}  {:>9}  {}"
    print("\n" + line.format("attempt", "went on from", "checkpoints", "state", "written", "how it ended"))
    for row in result.attempts:
        print(
            line.format(
                row["attempt"],
                "the start" if row["resumed_from"] is None else f"epoch {row['resumed_from']}",
                row["checkpoints"],
                kilobytes(row["bytes"]),
                kilobytes(row["new_bytes"]),
                f"died: {row['died']}" if row["died"] else "finished",
            )
        )
    keys = ("checkpoints", "bytes", "new_bytes")
    count, total, new = (sum(row[key] for row in result.attempts) for key in keys)
    print(line.format("all", "", count, kilobytes(total), kilobytes(new), "").rstrip())
    print(f"\nwritten once and not again: {1 - new / total:.0%} of the state (unchanged data, compression)")
    print(f"accuracy on digits it never saw: {result.accuracy:.1%}")
    mark = "\N{CHECK MARK} yes" if result.identical else "\N{BALLOT X} NO"
    print(f"weights bit-identical to a training that never died: {mark}")


def kilobytes(n_bytes):
    return f"{n_bytes / 1024:,.0f} KiB"


if __name__ == "__main__":
    sys.exit(main())
