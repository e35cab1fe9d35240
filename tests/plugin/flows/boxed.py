"""State that only a serializer of Metaflow's can save."""

from boxes import Box, Leaky
from metaflow import Checkpoint, FlowSpec, checkpoint, current, retry, step
from telling import error_of, tell


class BoxedFlow(FlowSpec):
    @retry(times=1, minutes_between_retries=0)
    @checkpoint
    @step
    def start(self):
        if current.retry_count == 0:
            self.box, self.number = Box([1, 2, 3]), 7
            saved = current.checkpoint.save()
            tell(field=current.checkpoint.inspect(saved)["fields"]["box"])
            self.leaky = Leaky([])
            tell(leaky=error_of(current.checkpoint.save))
            raise RuntimeError("dies")
        current.checkpoint.load()
        tell(
            box=[type(self.box).__name__, self.box.content, self.number], leaky_is_set=hasattr(self, "leaky")
        )
        tell(client=Checkpoint().load(current.checkpoint.info)["box"].content)
        Checkpoint().save({"box": Box([4])}, name="client")
        tell(listed=[one.name for one in current.checkpoint.list()], pathspec=current.pathspec)
        self.next(self.end)

    @step
    def end(self):
        tell(artifact=self.box.content)


if __name__ == "__main__":
    BoxedFlow()
