"""Stands in for Lightning where it is not installed: as much as the recipe calls, with Lightning's files."""

import os
from types import SimpleNamespace

import torch


class LightningModule(torch.nn.Module):
    def log(self, name, value):
        self.logged = {name: value.detach()}


class ModelCheckpoint:
    """Keeps the best ``save_top_k`` files and a relative link to the newest."""

    def __init__(self, dirpath, *, monitor, save_top_k, **ignored):
        self.dirpath, self.monitor, self.save_top_k = dirpath, monitor, save_top_k
        self.best = {}

    def on_validation_end(self, trainer, module):
        path = os.path.join(self.dirpath, f"epoch={trainer.current_epoch}.ckpt")
        self.best[path] = float(trainer.callback_metrics[self.monitor])
        if len(self.best) > self.save_top_k:
            worst = max(self.best, key=self.best.get)
            del self.best[worst]
            if worst == path:
                return
            os.remove(worst)
        trainer.save_checkpoint(path)
        last = os.path.join(self.dirpath, "last.ckpt")
        if os.path.lexists(last):
            os.remove(last)
        os.symlink(os.path.relpath(path, self.dirpath), last)


class Trainer:
    def __init__(self, *, max_epochs, callbacks, **ignored):
        self.max_epochs, self.callbacks = max_epochs, callbacks
        self.current_epoch = self.global_step = 0
        self.sanity_checking = False

    def fit(self, module, train, validation, ckpt_path):
        self.module, self.optimizer = module, module.configure_optimizers()
        if ckpt_path is not None:
            saved = torch.load(ckpt_path)
            module.load_state_dict(saved["state_dict"])
            self.optimizer.load_state_dict(saved["optimizer_states"][0])
            self.current_epoch, self.global_step = saved["epoch"] + 1, saved["global_step"]
        while self.current_epoch < self.max_epochs:
            for i, batch in enumerate(train):
                self.optimizer.zero_grad()
                module.training_step(batch, i).backward()
                self.optimizer.step()
                self.global_step += 1
            module.validation_step(next(iter(validation)), 0)
            self.callback_metrics = module.logged
            for callback in self.callbacks:
                callback.on_validation_end(self, module)
            self.current_epoch += 1

    def save_checkpoint(self, path):
        states = {"state_dict": self.module.state_dict(), "optimizer_states": [self.optimizer.state_dict()]}
        torch.save({"epoch": self.current_epoch, "global_step": self.global_step, **states}, path)


callbacks = SimpleNamespace(ModelCheckpoint=ModelCheckpoint)
