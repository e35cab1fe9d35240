"""A training run that dies again and again and still ends with the very same weights.

    python examples/train_numpy.py run

The step `train` fits a small network to scikit-learn's digits with Adam. It is
made to fail at random points, once by an exception and once without any warning
(`os._exit`), and is retried. Each attempt goes on from the last checkpoint. The
step `check` trains once more, without a failure, and compares the bits.
"""

import os
import random
from types import SimpleNamespace

import numpy as np
from metaflow import FlowSpec, Parameter, checkpoint, current, retry, step

BATCH = 64
HIDDEN = 48
MAX_CRASHES = 3


class TrainNumpy(FlowSpec):
    epochs = Parameter("epochs", default=20, help="passes over the training data")
    crashes = Parameter("crashes", default=MAX_CRASHES, help="how often training dies, at most 3")
    seed = Parameter("seed", default=7, help="decides the weights, the batches and the crashes")

    @step
    def start(self):
        from sklearn.datasets import load_digits

        digits = load_digits()
        order = np.random.default_rng(self.seed).permutation(len(digits.target))
        pixels, labels = digits.data[order] / 16.0, digits.target[order]
        self.train_x, self.train_y = pixels[:1500], labels[:1500]
        self.test_x, self.test_y = pixels[1500:], labels[1500:]
        self.next(self.train)

    @retry(times=MAX_CRASHES, minutes_between_retries=0)
    @checkpoint(exclude=["test_x", "test_y"])
    @step
    def train(self):
        if current.checkpoint.is_loaded:
            current.checkpoint.load()
        else:
            self.epoch, self.losses = 0, []
            self.rng = np.random.default_rng(self.seed)
            self.model, self.adam = new_network(self.rng)

        crash = planned_crash(self.seed, current.retry_count, self.crashes, self.epochs)
        while self.epoch < self.epochs:
            loss = train_one_epoch(self, crash)
            self.losses.append(loss)
            self.epoch += 1
            current.checkpoint.save("epoch", metadata={"epoch": self.epoch, "loss": loss})

        self.train_task = current.pathspec
        self.next(self.check)

    @step
    def check(self):
        rng = np.random.default_rng(self.seed)
        model, adam = new_network(rng)
        straight = SimpleNamespace(
            train_x=self.train_x, train_y=self.train_y, rng=rng, model=model, adam=adam
        )
        for _ in range(self.epochs):
            train_one_epoch(straight)
        self.identical = all(self.model[name].tobytes() == model[name].tobytes() for name in model)
        guesses = forward(self.model, self.test_x)[1].argmax(axis=1)
        self.accuracy = float((guesses == self.test_y).mean())
        self.next(self.end)

    @checkpoint
    @step
    def end(self):
        saved = current.checkpoint.list(task=self.train_task)[::-1]
        self.attempts = []
        for attempt in range(1 + max(found.attempt for found in saved)):
            own = [found for found in saved if found.attempt == attempt]
            before = [found for found in saved if found.attempt < attempt]
            crash = planned_crash(self.seed, attempt, self.crashes, self.epochs)
            self.attempts.append(
                {
                    "attempt": attempt,
                    "resumed_from": before[-1].metadata["epoch"] if before else None,
                    "checkpoints": len(own),
                    "bytes": sum(found.size for found in own),
                    "new_bytes": sum(found.new_bytes for found in own),
                    "died": f"{crash['how']} in epoch {crash['epoch'] + 1}" if crash else None,
                }
            )
            print(self.attempts[-1])
        print(f"same bits as an uninterrupted run: {self.identical}, accuracy {self.accuracy:.1%}")
        if not self.identical:
            raise RuntimeError("the resumed training ended with other weights than the uninterrupted one")


def new_network(rng):
    """Return a network of one hidden layer and Adam's state for it."""
    model = {
        "w1": rng.normal(0, 64**-0.5, (64, HIDDEN)),
        "b1": np.zeros(HIDDEN),
        "w2": rng.normal(0, HIDDEN**-0.5, (HIDDEN, 10)),
        "b2": np.zeros(10),
    }
    adam = {name: (np.zeros_like(weight), np.zeros_like(weight)) for name, weight in model.items()}
    return model, adam | {"steps": 0}


def forward(model, pixels):
    """Return the hidden activations and the probabilities of the ten digits."""
    hidden = np.maximum(pixels @ model["w1"] + model["b1"], 0)
    scores = hidden @ model["w2"] + model["b2"]
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return hidden, powers / powers.sum(axis=1, keepdims=True)


def train_one_epoch(state, crash=None):
    """Update `state.model` and `state.adam` in place, die where it is planned, return the mean loss."""
    model, losses = state.model, []
    order = state.rng.permutation(len(state.train_y))
    for number, start in enumerate(range(0, len(order), BATCH)):
        if crash and (state.epoch, number) == (crash["epoch"], crash["batch"]):
            die(crash["how"])
        chosen = order[start : start + BATCH]
        pixels, labels = state.train_x[chosen], state.train_y[chosen]
        hidden, chances = forward(model, pixels)
        rows = np.arange(len(labels))
        losses.append(-np.log(chances[rows, labels]).mean())
        error = chances.copy()
        error[rows, labels] -= 1
        error /= len(labels)
        back = (error @ model["w2"].T) * (hidden > 0)
        adam_step(
            model,
            state.adam,
            {"w1": pixels.T @ back, "b1": back.sum(axis=0), "w2": hidden.T @ error, "b2": error.sum(axis=0)},
        )
    return float(np.mean(losses))


def adam_step(model, adam, gradients, rate=0.002):
    adam["steps"] += 1
    for name, gradient in gradients.items():
        mean, square = adam[name]
        mean += 0.1 * (gradient - mean)
        square += 0.001 * (gradient**2 - square)
        step_size = rate * np.sqrt(1 - 0.999 ** adam["steps"]) / (1 - 0.9 ** adam["steps"])
        model[name] -= step_size * mean / (np.sqrt(square) + 1e-8)


def planned_crash(seed, attempt, crashes, epochs):
    """Return where this attempt dies and how, or None: random, the same every time, later each attempt."""
    if attempt >= min(crashes, MAX_CRASHES):
        return None
    chance = random.Random(f"{seed}/{attempt}")
    first, last = (epochs * part // (crashes + 1) for part in (attempt, attempt + 1))
    return {
        "epoch": chance.randrange(first, max(last, first + 1)),
        "batch": chance.randrange(1500 // BATCH),
        "how": "exception" if attempt % 2 == 0 else "os._exit",
    }


def die(how):
    if how == "os._exit":
        os._exit(17)
    raise RuntimeError("training was made to fail here")


if __name__ == "__main__":
    TrainNumpy()
