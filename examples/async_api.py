"""The store in asyncio: a save goes on while the loop does other things.

python examples/async_api.py
"""

import asyncio
import tempfile

import ckptstore


async def main(folder):
    async with await ckptstore.AsyncCheckpointStore.open(folder) as store:
        state = {"step": 1, "buffer": bytes(4 << 20)}
        first = await store.save("demo/async", state, label="latest")
        print(f"saved {first.sizes.raw_bytes:,} bytes as {first.sizes.stored_bytes:,}")

        # It returns when the values are captured; `committed` is awaited when it matters.
        state["step"] = 2
        pending = await store.save("demo/async", state, label="best", metadata={"score": 0.9}, wait=False)
        state["step"] = 99
        second = await pending.committed
        print(f"saved again, {second.sizes.new_bytes:,} bytes were new: the buffer had not changed")

        labels = [found.label async for found in store.list("demo/async")]
        assert labels == ["best", "latest"]

        manifest = await store.inspect(second)
        print("fields:", {name: field.type_name for name, field in manifest.fields.items()})

        both = await asyncio.gather(store.load(first), store.load(second, fields=["step"]))
        assert [loaded["step"] for loaded in both] == [1, 2]

        await store.delete(second)
        assert (await store.latest("demo/async")).ref == first.ref
        await store.undelete(second)
        assert (await store.latest("demo/async", label="best")).ref == second.ref
    print("done")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(folder))
