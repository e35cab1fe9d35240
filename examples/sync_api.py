"""The store without Metaflow and without an event loop.

python examples/sync_api.py
"""

import tempfile

import ckptstore


def main(folder):
    with ckptstore.CheckpointStore.open(folder) as store:
        state = {"step": 1, "weights": [0.5, -1.25], "names": {"first": "ada"}}
        first = store.save("demo/run1", state, label="latest", metadata={"loss": 0.7})

        # In the background: save() returns when the values are captured, so they may change at once.
        state["step"] = 2
        pending = store.save("demo/run1", state, label="latest", metadata={"loss": 0.4}, wait=False)
        state["step"] = 99
        second = pending.result()

        print("newest first:", [(found.label, found.metadata["loss"]) for found in store.list("demo/run1")])
        assert store.latest("demo/run1").ref == second.ref

        for name, field in store.inspect(second).fields.items():
            print(f"  {name}: {field.type_name}, {field.raw_bytes} bytes")

        assert store.load("demo/run1")["step"] == 2
        assert store.load(first, fields=["weights"]) == {"weights": [0.5, -1.25]}

        # A reference is four strings. It pins the content and can be kept anywhere.
        kept = second.ref.to_dict()
        assert store.load(kept)["names"] == {"first": "ada"}

        store.delete(second)
        assert store.latest("demo/run1").ref == first.ref
        store.undelete(second)
        assert store.latest("demo/run1").ref == second.ref
    print("done")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(folder)
