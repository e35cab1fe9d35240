"""XGBoost that loses its machine in the middle and goes on from its last checkpoint.

    pip install xgboost
    python examples/recipes/xgboost_directory.py run

The model is a file in `current.checkpoint.directory`: whatever is there is part
of every `current.checkpoint.save()`, and is there again when the task is retried.
"""

import os

import numpy as np
from metaflow import FlowSpec, Parameter, checkpoint, current, retry, step


def checkpointer(every, fail_after):
    import xgboost

    class Checkpointer(xgboost.callback.TrainingCallback):
        def after_iteration(self, model, epoch, evals_log):
            if (epoch + 1) % every == 0:
                # The same file each time: older checkpoints keep what they had.
                model.save_model(os.path.join(current.checkpoint.directory, "model.ubj"))
                current.checkpoint.save(metadata={"logloss": evals_log["train"]["logloss"][-1]})
            if epoch + 1 == fail_after and current.retry_count == 0:
                raise RuntimeError("the machine is gone")
            return False

    return Checkpointer()


class XGBoostDirectory(FlowSpec):
    rounds = Parameter("rounds", default=60)

    @step
    def start(self):
        random = np.random.default_rng(0)
        self.points = random.normal(size=(2000, 12))
        self.labels = (self.points[:, :4].prod(axis=1) > 0).astype(int)
        self.next(self.train)

    @retry(times=1, minutes_between_retries=0)
    @checkpoint(exclude=["points", "labels"])
    @step
    def train(self):
        import xgboost

        model, n_done = None, 0
        if current.checkpoint.is_loaded:
            model = xgboost.Booster(model_file=os.path.join(current.checkpoint.directory, "model.ubj"))
            n_done = model.num_boosted_rounds()
            print(f"going on after round {n_done}")

        data = xgboost.DMatrix(self.points, self.labels)
        model = xgboost.train(
            {"objective": "binary:logistic", "max_depth": 3},
            data,
            num_boost_round=self.rounds - n_done,
            evals=[(data, "train")],
            verbose_eval=False,
            xgb_model=model,
            callbacks=[checkpointer(every=10, fail_after=35)],
        )
        print(f"a model of {model.num_boosted_rounds()} rounds")
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    XGBoostDirectory()
