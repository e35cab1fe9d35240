"""Stands in for transformers where it is not installed: as much as the recipe calls, with the Trainer's files."""

import json
import os
import re
import shutil
from types import SimpleNamespace

import torch


class TrainerCallback:
    pass


def TrainingArguments(**arguments):
    return SimpleNamespace(**arguments)


class Trainer:
    """Trains one batch a step and writes ``checkpoint-<step>`` folders, of which the last few stay."""

    def __init__(self, *, model, args, train_dataset, callbacks):
        self.model, self.args, self.callbacks = model, args, callbacks
        self.points = torch.stack([torch.as_tensor(row["points"]) for row in train_dataset])
        self.labels = torch.stack([torch.as_tensor(row["labels"]) for row in train_dataset])
        self.optimizer = torch.optim.AdamW(model.parameters())
        self.state = SimpleNamespace(global_step=0)

    def train(self, resume_from_checkpoint):
        if resume_from_checkpoint:
            self._restore(os.path.join(self.args.output_dir, self._folders()[-1]))
        size = self.args.per_device_train_batch_size
        starts = range(0, len(self.points), size)
        while self.state.global_step < self.args.num_train_epochs * len(starts):
            start = starts[self.state.global_step % len(starts)]
            self.optimizer.zero_grad()
            self.model(self.points[start : start + size], self.labels[start : start + size])[
                "loss"
            ].backward()
            self.optimizer.step()
            self.state.global_step += 1
            if self.state.global_step % self.args.save_steps == 0:
                self._save(os.path.join(self.args.output_dir, f"checkpoint-{self.state.global_step}"))

    def _save(self, folder):
        os.mkdir(folder)
        for name, content in (
            ("model.safetensors", self.model.state_dict()),
            ("optimizer.pt", self.optimizer.state_dict()),
            ("scheduler.pt", {"last_epoch": self.state.global_step}),
            ("rng_state.pth", torch.get_rng_state()),
            ("training_args.bin", vars(self.args)),
        ):
            torch.save(content, os.path.join(folder, name))
        with open(os.path.join(folder, "trainer_state.json"), "w") as file:
            json.dump(vars(self.state), file)
        for name in self._folders()[: -self.args.save_total_limit]:
            shutil.rmtree(os.path.join(self.args.output_dir, name))
        for callback in self.callbacks:
            callback.on_save(self.args, self.state, None)

    def _restore(self, folder):
        # A file object: torch refuses to read a file of its own under this name.
        with open(os.path.join(folder, "model.safetensors"), "rb") as file:
            self.model.load_state_dict(torch.load(file))
        self.optimizer.load_state_dict(torch.load(os.path.join(folder, "optimizer.pt")))
        with open(os.path.join(folder, "trainer_state.json")) as file:
            self.state.global_step = json.load(file)["global_step"]

    def _folders(self):
        names = [name for name in os.listdir(self.args.output_dir) if re.fullmatch(r"checkpoint-\d+", name)]
        return sorted(names, key=lambda name: int(name.partition("-")[2]))
