"""A Hugging Face Trainer that loses its machine in the middle and goes on from its last checkpoint.

    pip install transformers accelerate
    python examples/recipes/huggingface_directory.py run

The Trainer writes its folders `checkpoint-<step>` to `current.checkpoint.directory`
and keeps the last two; what is there is part of every `current.checkpoint.save()`,
and is there again when the task is retried.
"""

import numpy as np
from metaflow import FlowSpec, Parameter, checkpoint, current, retry, step


def regression():
    import torch

    class Regression(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))

        def forward(self, points, labels):
            predicted = self.layers(points)
            return {"loss": torch.nn.functional.mse_loss(predicted, labels), "logits": predicted}

    torch.manual_seed(0)
    return Regression()


def saving_callback(fail_after):
    import transformers

    class SavingCallback(transformers.TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            current.checkpoint.save(metadata={"step": state.global_step})
            if state.global_step == fail_after and current.retry_count == 0:
                raise RuntimeError("the machine is gone")

    return SavingCallback()


class HuggingFaceDirectory(FlowSpec):
    epochs = Parameter("epochs", default=10)

    @step
    def start(self):
        self.points = np.random.default_rng(0).normal(size=(128, 8)).astype("float32")
        self.next(self.train)

    @retry(times=1, minutes_between_retries=0)
    @checkpoint(exclude=["points"])
    @step
    def train(self):
        import transformers

        trainer = transformers.Trainer(
            model=regression(),
            args=transformers.TrainingArguments(
                output_dir=current.checkpoint.directory,
                num_train_epochs=self.epochs,
                per_device_train_batch_size=32,
                save_steps=5,
                save_total_limit=2,
                report_to=[],
                use_cpu=True,
                disable_tqdm=True,
            ),
            train_dataset=[{"points": row, "labels": row.sum(keepdims=True)} for row in self.points],
            callbacks=[saving_callback(fail_after=25)],
        )
        if current.checkpoint.is_loaded:
            print(f"going on after step {current.checkpoint.info.metadata['step']}")
        # True: from the last of the folders that are in output_dir.
        trainer.train(resume_from_checkpoint=current.checkpoint.is_loaded)
        print(f"trained up to step {trainer.state.global_step}")
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    HuggingFaceDirectory()
