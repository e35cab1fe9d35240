"""A model and its optimizer, saved as they are, after a crash."""

from metaflow import FlowSpec, checkpoint, current, retry, step
from telling import tell


class TorchStateFlow(FlowSpec):
    @retry(times=1, minutes_between_retries=0)
    @checkpoint(include=["epoch", "model", "optimizer", "best", "loss_of"])
    @step
    def start(self):
        import torch
        from torch import nn

        torch.manual_seed(0)
        if current.checkpoint.is_loaded:
            current.checkpoint.load()
        else:
            self.epoch, self.loss_of = 0, nn.CrossEntropyLoss()
            self.model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
            self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.1)
            self.best = self.model[0].weight
        before = self.model[0].weight.detach().clone()
        while self.epoch < 4:
            self.optimizer.zero_grad()
            self.model(torch.ones(4, 8) * self.epoch).square().mean().backward()
            self.optimizer.step()
            self.epoch += 1
            saved = current.checkpoint.save(metadata={"epoch": torch.tensor(self.epoch)})
            if self.epoch == 2 and current.retry_count == 0:
                raise RuntimeError("dies")
        held = {id(parameter) for group in self.optimizer.param_groups for parameter in group["params"]}
        fields = current.checkpoint.inspect(saved)["fields"]
        tell(
            retried=current.retry_count,
            held=held == {id(parameter) for parameter in self.model.parameters()},
            alias=self.best is self.model[0].weight,
            trained=not torch.equal(before, self.model[0].weight),
            steps=float(self.optimizer.state[self.best]["step"]),
            fields=sorted(fields),
            leaf=next(leaf["dtype"] for leaf in fields["best"]["leaves"] + fields["model"]["leaves"]),
            metadata=current.checkpoint.list()[0].metadata,
            callable=callable(self.model) and "model" in fields,
        )
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    TorchStateFlow()
