"""Lightning that loses its machine in the middle and goes on from its last checkpoint.

    pip install pytorch-lightning
    python examples/recipes/lightning_directory.py run

Lightning's own ModelCheckpoint keeps the two best checkpoints and the link
`last.ckpt` in `current.checkpoint.directory`; what is there is part of every
`current.checkpoint.save()`, links too, and is there again when the task is retried.
"""

import os

import numpy as np
from metaflow import FlowSpec, Parameter, checkpoint, current, retry, step


def regression():
    import pytorch_lightning as lightning
    import torch

    class Regression(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))

        def training_step(self, batch, batch_idx):
            points, targets = batch
            return torch.nn.functional.mse_loss(self.layers(points), targets)

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", self.training_step(batch, batch_idx))

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=0.01)

    return Regression()


def saving_checkpoint(fail_after):
    import pytorch_lightning as lightning

    class SavingCheckpoint(lightning.callbacks.ModelCheckpoint):
        def on_validation_end(self, trainer, module):
            super().on_validation_end(trainer, module)
            if trainer.sanity_checking:
                return
            n_done = trainer.current_epoch + 1
            loss = float(trainer.callback_metrics["val_loss"])
            current.checkpoint.save(metadata={"epoch": n_done, "val_loss": loss})
            if n_done == fail_after and current.retry_count == 0:
                raise RuntimeError("the machine is gone")

    return SavingCheckpoint(
        current.checkpoint.directory,
        monitor="val_loss",
        save_top_k=2,
        save_last="link",
        filename="{epoch}",
        # The directory's path is another one in each attempt, so Lightning does not know that the
        # files in it are its own: it would begin last-v1.ckpt, and leaves the best of before alone.
        enable_version_counter=False,
        # Its file is written in on_validation_end then, before ours is saved.
        save_on_train_epoch_end=False,
    )


class LightningDirectory(FlowSpec):
    epochs = Parameter("epochs", default=6)

    @step
    def start(self):
        random = np.random.default_rng(0)
        self.points = random.normal(size=(256, 8)).astype("float32")
        self.targets = self.points.sum(axis=1, keepdims=True)
        self.next(self.train)

    @retry(times=1, minutes_between_retries=0)
    @checkpoint(exclude=["points", "targets"])
    @step
    def train(self):
        import pytorch_lightning as lightning
        import torch
        from torch.utils.data import DataLoader, TensorDataset

        last = None
        if current.checkpoint.is_loaded:
            last = os.path.join(current.checkpoint.directory, "last.ckpt")
            print(f"going on after epoch {current.checkpoint.info.metadata['epoch']}")

        trainer = lightning.Trainer(
            max_epochs=self.epochs,
            accelerator="cpu",
            callbacks=[saving_checkpoint(fail_after=4)],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        data = TensorDataset(torch.from_numpy(self.points), torch.from_numpy(self.targets))
        batches = DataLoader(data, batch_size=64)
        trainer.fit(regression(), batches, batches, ckpt_path=last)
        print(f"trained up to epoch {trainer.current_epoch}, {trainer.global_step} steps in all")
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    LightningDirectory()
