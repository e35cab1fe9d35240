"""A PyTorch training that fails at random, is retried, and goes on where it was.

    python examples/train_pytorch.py run

It keeps a "latest" checkpoint every few epochs and a "best" one whenever the
validation loss improves. The model and the optimizer are saved as they are, and
come back as they belong together: the optimizer still holds the model's own
parameters. A later step looks at all checkpoints of the training task.
"""

import random

import torch
from metaflow import FlowSpec, Parameter, checkpoint, current, retry, step
from torch import nn

MAX_FAILURES = 2


class TrainPyTorch(FlowSpec):
    epochs = Parameter("epochs", default=12)
    save_every = Parameter("save_every", default=3, help='epochs between two "latest" checkpoints')
    seed = Parameter("seed", default=3)

    @step
    def start(self):
        torch.manual_seed(self.seed)
        angle = torch.rand(600) * 9
        arm = torch.randint(0, 2, (600,))
        turned = angle + arm * torch.pi
        noise = 0.3 * torch.randn(600, 2)
        self.points = torch.stack([angle * turned.cos(), angle * turned.sin()], dim=1) / 4 + noise / 4
        self.labels = arm
        self.next(self.train)

    @retry(times=MAX_FAILURES, minutes_between_retries=0)
    @checkpoint(include=["epoch", "best_loss", "train_loss", "val_loss", "model", "optimizer"])
    @step
    def train(self):
        torch.manual_seed(self.seed)
        self.epoch, self.best_loss = 0, float("inf")
        self.train_loss, self.val_loss = [], []
        self.model = new_model()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        if current.checkpoint.is_loaded:
            current.checkpoint.load()

        while self.epoch < self.epochs:
            self.train_loss.append(self.train_one_epoch())
            self.val_loss.append(self.validate())
            self.epoch += 1
            facts = {"epoch": self.epoch, "val_loss": self.val_loss[-1]}
            if self.val_loss[-1] < self.best_loss:
                self.best_loss = self.val_loss[-1]
                current.checkpoint.save("best", metadata=facts, latest=False)
            if self.epoch % self.save_every == 0:
                current.checkpoint.save("latest", metadata=facts)
            self.maybe_fail()

        self.train_task = current.pathspec
        self.next(self.look)

    @checkpoint(load_policy="none")
    @step
    def look(self):
        self.saved = current.checkpoint.list(task=self.train_task)
        for found in self.saved:
            print(found.attempt, found.name, found.metadata, f"{found.size:,} bytes, {found.new_bytes:,} new")
        fields = current.checkpoint.inspect(self.saved[0])["fields"]
        for name, field in fields.items():
            print(name, field["type"], field["format"], [leaf["shape"] for leaf in field["leaves"]][:4])

        best = current.checkpoint.list(name="best", task=self.train_task)[0]
        current.checkpoint.load(best)
        print(f"the best model, of epoch {self.epoch}, has validation loss {self.validate():.4f}")
        self.next(self.end)

    @step
    def end(self):
        pass

    def train_one_epoch(self):
        self.model.train()
        total = 0.0
        for points, labels in zip(self.points[:480].split(32), self.labels[:480].split(32), strict=True):
            loss = nn.functional.cross_entropy(self.model(points), labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.item() * len(labels)
        return total / 480

    @torch.no_grad()
    def validate(self):
        self.model.eval()
        return nn.functional.cross_entropy(self.model(self.points[480:]), self.labels[480:]).item()

    def maybe_fail(self):
        """Fail at random, in the same epochs every time, and never in the last attempt."""
        chance = random.Random(f"{self.seed}/{current.retry_count}/{self.epoch}")
        if current.retry_count < MAX_FAILURES and chance.random() < 0.3:
            raise RuntimeError(f"failed by chance after epoch {self.epoch}")


def new_model():
    return nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))


if __name__ == "__main__":
    TrainPyTorch()
