"""``@checkpoint``: the hooks that Metaflow calls around a step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from metaflow.decorators import StepDecorator
from metaflow.flowspec import FlowSpec
from metaflow.metaflow_current import current

# At the top of this module for Metaflow's packaging, which carries what a decorator's
# module imports to remote tasks. It costs nothing: ckptstore imports lazily.
import ckptstore  # noqa: F401

from .defaults import DEFAULTS

# The rest is imported in the hooks: Metaflow imports this module in every process of every flow.
if TYPE_CHECKING:
    from .options import Options
    from .session import Session

__all__ = ["CheckpointDecorator"]


class CheckpointDecorator(StepDecorator):
    """
    Saves the state of a step while it runs, and gives it back after a failure.

    `current.checkpoint.save()` saves the attributes of `self`; when the task is retried,
    `current.checkpoint.is_loaded` says that a checkpoint was found and
    `current.checkpoint.load()` sets the attributes again.

    ```
    @retry
    @checkpoint
    @step
    def train(self):
        self.epoch, self.model = 0, make_model()
        if current.checkpoint.is_loaded:
            current.checkpoint.load()
        while self.epoch < 10:
            train_one_epoch(self.model)
            self.epoch += 1
            current.checkpoint.save()
    ```

    Parameters
    ----------
    load_policy : Any, optional, default "fresh"
        Which checkpoint is found at the task's start.
        "fresh": the newest that an earlier attempt of this very task saved, or if there is none
        and the run is a `resume`, the newest that this very task saved in the run resumed.
        "eager": the newest of this step and foreach branch in the namespace, of any run.
        "best:<metric>" or "best:<metric>:max": the one with the smallest or largest number of
        that name in its metadata, of this step and foreach branch in the namespace, of any run.
        "none" or None: none, `load` is given one.
        Or what to start from if "fresh" finds nothing: a checkpoint (its artifact, the artifact's
        dict or its key), a Run or 'Flow/run_id' (its newest of this step and branch), a Task or
        'Flow/run_id/step/task_id'. If that is not there, the task fails.
        The namespace is the run's `checkpoint:` tags if it has any, else the @project branch,
        else who runs it. Each rank of a @parallel step finds its own, or else what was saved
        with `save(shared=True)`.
    include : List[str], optional, default None
        The attributes to save. By default all that Metaflow would persist.
    exclude : List[str], optional, default None
        Attributes not to save. Not together with include.
    temp_dir_root : str, optional, default None
        The folder in which `current.checkpoint.directory` is made, itself made if need be.
        By default where temporary files go.
    show_card : bool, default True
        Show the task's checkpoints in a card of type and id "checkpoint": what is saved, when,
        how large, for how long the step waited, and what was loaded. It is written beside the
        step and renewed while the step runs. In a @parallel step the control task has one.
    background : bool, default False
        Let save() return when the state is captured and write it in the background.
        The step's end waits for what is still being written.
    keep : str, optional, default None
        Which of this run's checkpoints stay: `last(3)`, `best("val_loss", 2)`, `every(10)` or
        `max_age("7 d")` from ckptstore, joined by `|`, or such a text. By default all. Pinned
        ones, the newest and the one that was loaded always stay.
    on_preemption : str, default "finish"
        What to do when the machine is about to go away, by Metaflow's notice for spot
        instances or by SIGTERM. "finish": what is being saved is finished. "save": then the
        state of the last `current.checkpoint.mark()` is saved too.
    sigterm : bool, default False
        Treat SIGTERM as such a notice, and let it take its course after that.

    MF Add To Current
    -----------------
    checkpoint -> metaflow_extensions.ckptstore.plugins.checkpoint.current_checkpoint.CurrentCheckpoint
        The checkpoints of the running task.

        @@ Returns
        -------
        CurrentCheckpoint
            Saves, restores, lists and inspects checkpoints.
    """

    name = "checkpoint"
    defaults = DEFAULTS

    _options: Options
    _logger: Callable[..., None]
    _session: Session | None = None

    def init(self) -> None:
        from .options import parse_options

        self._options = parse_options(self.attributes)
        # Metaflow leaves None out of what it hands to the task of a `--with checkpoint:load_policy=null`.
        self.attributes["load_policy"] = self._options.load_policy
        self.attributes["show_card"] = self._options.show_card
        self.attributes["keep"] = None if self._options.keep is None else str(self._options.keep)
        # What schedulers are handed is JSON, which has no sets.
        for name in ("include", "exclude"):
            if self.attributes[name] is not None:
                self.attributes[name] = sorted(self.attributes[name])

    def step_init(
        self,
        flow: FlowSpec,
        graph: Any,
        step_name: str,
        decorators: Any,
        environment: Any,
        flow_datastore: Any,
        logger: Callable[..., None],
    ) -> None:
        from .flow_state import refuse_fixed_names
        from .requirements import add_requirements

        self._logger = logger
        add_requirements(decorators, flow, flow_datastore.TYPE if flow_datastore else "local")
        refuse_fixed_names(flow, self._options.include or ())

    def task_pre_step(
        self,
        step_name: str,
        task_datastore: Any,
        metadata: Any,
        run_id: str,
        task_id: str,
        flow: FlowSpec,
        graph: Any,
        retry_count: int,
        max_user_code_retries: int,
        ubf_context: Any,
        inputs: Any,
    ) -> None:
        from .attempt import session_of_attempt
        from .task_lines import note_lines

        # Later attempts are @catch's: they run its fallback and no line of the step.
        is_fallback = retry_count > max_user_code_retries
        self._session = session_of_attempt(
            flow,
            step=step_name,
            run_id=run_id,
            task_id=task_id,
            number=retry_count,
            is_fallback=is_fallback,
            ubf_context=ubf_context,
            options=self._options,
            task_datastore=task_datastore,
            inputs=inputs,
            log=self._log,
        )
        if not is_fallback:
            note_lines(metadata, self._session.identity)
            self._session.find_start()
            self._session.open_to_children()

    def task_decorate(
        self,
        step_func: Callable[..., Any],
        flow: FlowSpec,
        graph: Any,
        retry_count: int,
        max_user_code_retries: int,
        ubf_context: Any,
    ) -> Callable[..., Any]:
        session = self._session
        if session is None:
            return step_func

        # The only place that is passed on every way out, SystemExit and KeyboardInterrupt too.
        @functools.wraps(step_func)
        def finishing(*args: Any) -> Any:
            completed = False
            try:
                # Metaflow's decorators tell of the notice in hooks that may run after ours.
                session.watch(current.get("spot_termination_notice"))
                result = step_func(*args)
                completed = True
            finally:
                if not completed:
                    session.close_after_error()
            session.close()
            return result

        return finishing

    def task_post_step(self, *args: Any, **kwargs: Any) -> None:
        # A user's step decorator may have saved after the step, so the files stay until here.
        if self._session is not None:
            try:
                self._session.close()
            finally:
                self._session.files.close()

    def task_exception(self, *args: Any, **kwargs: Any) -> None:
        if self._session is not None:
            self._session.close_after_error()
            self._session.files.close()

    def _log(self, message: str) -> None:
        self._logger(f"[@checkpoint] {message}", timestamp=False)
