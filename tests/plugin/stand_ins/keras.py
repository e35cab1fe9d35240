"""Stands in for Keras where it is not installed: as much as the recipe calls, with the file that Keras writes."""

import io
import json
import zipfile
from types import SimpleNamespace

import numpy as np


class Callback:
    def set_model(self, model):
        self.model = model

    def on_epoch_end(self, epoch, logs=None):
        pass


class ModelCheckpoint(Callback):
    """Writes the model at the end of each epoch, as the archive that a .keras file is."""

    def __init__(self, filepath):
        self.filepath = filepath

    def on_epoch_end(self, epoch, logs=None):
        weights = io.BytesIO()
        np.save(weights, self.model.weights)
        with zipfile.ZipFile(self.filepath, "w") as archive:
            archive.writestr("metadata.json", json.dumps({"keras_version": "stand-in"}))
            archive.writestr("config.json", json.dumps({"class_name": "Sequential"}))
            archive.writestr("model.weights.h5", weights.getvalue())


class Sequential:
    def __init__(self, layers):
        self.weights = np.zeros((8, 1), dtype="float32")

    def compile(self, optimizer, loss):
        pass

    def fit(self, x, y, *, initial_epoch, epochs, verbose, callbacks):
        history = SimpleNamespace(epoch=[])
        for callback in callbacks:
            callback.set_model(self)
        for epoch in range(initial_epoch, epochs):
            error = x @ self.weights - y
            self.weights -= 0.1 * x.T @ error / len(x)
            history.epoch.append(epoch)
            for callback in callbacks:
                callback.on_epoch_end(epoch, {"loss": float((error**2).mean())})
        return history


def load_model(path):
    model = Sequential([])
    with zipfile.ZipFile(path) as archive:
        model.weights = np.load(io.BytesIO(archive.read("model.weights.h5")))
    return model


layers = SimpleNamespace(Dense=lambda units, activation=None: None)
callbacks = SimpleNamespace(Callback=Callback, ModelCheckpoint=ModelCheckpoint)
models = SimpleNamespace(load_model=load_model)
