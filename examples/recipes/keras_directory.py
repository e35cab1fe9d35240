"""Keras that loses its machine in the middle and goes on from its last checkpoint.

    pip install keras torch          (or tensorflow, or jax)
    KERAS_BACKEND=torch python examples/recipes/keras_directory.py run

Keras' own ModelCheckpoint writes the model, optimizer included, to a file in
`current.checkpoint.directory`; what is there is part of every
`current.checkpoint.save()`, and is there again when the task is retried.
"""

import os

import numpy as np
from metaflow import FlowSpec, Parameter, checkpoint, current, retry, step


def new_model():
    import keras

    model = keras.Sequential([keras.layers.Dense(16, activation="relu"), keras.layers.Dense(1)])
    model.compile(optimizer="adam", loss="mean_squared_error")
    return model


def saving_each_epoch(fail_after):
    import keras

    class SavingEachEpoch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            current.checkpoint.save(metadata={"epoch": epoch + 1, "loss": logs["loss"]})
            if epoch + 1 == fail_after and current.retry_count == 0:
                raise RuntimeError("the machine is gone")

    return SavingEachEpoch()


class KerasDirectory(FlowSpec):
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
        import keras

        path = os.path.join(current.checkpoint.directory, "last.keras")
        model, n_done = new_model(), 0
        if current.checkpoint.is_loaded:
            model, n_done = keras.models.load_model(path), current.checkpoint.info.metadata["epoch"]
            print(f"going on after epoch {n_done}")

        history = model.fit(
            self.points,
            self.targets,
            initial_epoch=n_done,
            epochs=self.epochs,
            verbose=0,
            # In this order: the file is written before it is saved.
            callbacks=[keras.callbacks.ModelCheckpoint(path), saving_each_epoch(fail_after=4)],
        )
        print(f"trained epochs {[epoch + 1 for epoch in history.epoch]} in this attempt")
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    KerasDirectory()
