"""The training loop `fit`, which trains a model from its config to the last step.

One step: a batch comes from the loader, the compiled train step is dispatched to the devices, and while they compute it the
metrics of the step before are read and written. Then, where they are due: the profiler, evaluations, a checkpoint.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import jax

from llama_jax.batch import Batch
from llama_jax.config import Config, to_dict
from llama_jax.data.ledger import ledger_table, source_totals
from llama_jax.data.loader import load_batches
from llama_jax.interruption import acting_when_stopped
from llama_jax.parallel.distributed import exit_at_once, first_line, lost_process_message
from llama_jax.training.heldout import heldout_metrics
from llama_jax.training.init_from import load_initial_params
from llama_jax.training.loss_plot import plot_loss
from llama_jax.training.metrics import TrainingMeter
from llama_jax.training.metrics_file import METRICS_FILE, holds_evaluation
from llama_jax.training.profiling import StepProfiler
from llama_jax.training.run import Evaluator, TrainingRun, open_training_run
from llama_jax.training.run_dir import DATA_POSITION, EVALUATION_DUE
from llama_jax.training.samples import SAMPLES_FILE, make_samples, write_samples
from llama_jax.training.step import Params, TrainState
from llama_jax.training.step_log import StepLog
from llama_jax.training.stopping import agreed_stop, catch_stop_signals


def fit(config: Config, workdir: Path, *, evaluators: Iterable[Evaluator] = ()) -> TrainState:
    """Train to the last step, from the newest checkpoint of `workdir` where there is one.

    Args:
        config: the run's config. A run may be resumed with another one as long as the model stays the same.
        workdir: the run directory; created if it does not exist.
        evaluators: called with the parameters every `config.eval.every` steps and after the last.

    Returns:
        The state after the last step; or, where SIGTERM, Ctrl-C or a limit of epochs stopped the run, the state that was saved
        then.

    Raises:
        ConfigError, DataError: what `open_training_run` finds wrong, before anything is compiled.
        DivergedError: the loss or the gradient norm of a step is not finite.
        StorageError: the last checkpoint, or another output, could not be written.
    """
    with open_training_run(config, workdir, evaluators=evaluators) as run:
        try:
            state = _train(run, _initial_state(run))
            run.heartbeat.enter("ending")
            if int(state.step) == run.last_step:
                _write_end(run)
                with acting_when_stopped(partial(_say_saved, run, step=run.last_step)):
                    _write_samples(run, state.params)
            run.writers.require_all_written()
            return state
        except jax.errors.JaxRuntimeError as error:
            if jax.process_count() == 1:
                raise
            exit_at_once(f"{lost_process_message()} ({first_line(error)}).")


def _initial_state(run: TrainingRun) -> TrainState:
    """Take the state of the checkpoint to resume from; else make a new one, with the weights of `init_from` if it is set."""
    if run.restored:
        return run.restored.pop()
    state = run.program.init()
    if run.initial_weights is not None:
        state = load_initial_params(state, run.initial_weights)
    return state


def _train(run: TrainingRun, state: TrainState) -> TrainState:
    """Train from `state` to the last step, or to the step at which a stop is requested."""
    config = run.config
    saved_progress = run.checkpoints.progress(run.resume_step) if run.resume_step else None
    meter = TrainingMeter(config, run.mixture, peak_flops=run.peak_flops, last_step=run.last_step, resume_step=run.resume_step,
                          progress=saved_progress)
    log = StepLog(run, meter)
    evaluation_due = bool(saved_progress) and saved_progress.get(EVALUATION_DUE, False)  # a stop request cut it off
    if evaluation_due and not holds_evaluation(run.workdir / METRICS_FILE, run.resume_step):
        _pause_to_evaluate(run, state, step=run.resume_step, meter=meter)
    batches = load_batches(run.mixture, run.mesh, batch_size=config.training.batch_size, start=0,
                           stop=run.last_step - run.resume_step)
    train_step, notes = None, run.mixture_notes()
    with catch_stop_signals() as stop_signals, closing(StepProfiler(config.profile, run.workdir)) as profiler:
        if warning := profiler.warning(run.last_step):
            run.writers.write_text(warning)

        for step, batch in enumerate(batches, run.resume_step + 1):
            if train_step is None:
                train_step = _compile_train_step(run, state, batch=batch)
                meter.start_clock(run.resume_step)
            if profiler.starts_before(step):
                with log.pause(step - 1):
                    profiler.start(step)

            run.heartbeat.step(step)
            state, metrics = train_step(state, batch)  # returns at once, while the devices compute
            log.add_dispatched(step, metrics)  # reads and writes the metrics of step - 1 meanwhile

            for note in notes.get(step, ()):
                run.writers.write_text(f"step {step}: {note}")
            if profiler.stops_after(step, run.last_step):
                with log.pause(step):
                    run.writers.write_text(profiler.stop(step))
            if _due_evaluators(run, step):
                with log.pause(step):
                    _pause_to_evaluate(run, state, step=step, meter=meter)
            ask_others = run.is_due(step, config.training.log_every)
            stop = agreed_stop(stop_signals, step, ask_others=ask_others)
            if stop or run.is_due(step, config.checkpoint.every) or run.saver.is_due(ask_others=ask_others):
                with log.pause(step):
                    for_good = bool(stop) or step == run.last_step
                    _save_checkpoint(run, state, step=step, meter=meter, for_good=for_good)
            if stop:
                run.writers.write_text(f"{stop}: {_say_saved(run, stop, step=step)}")
                break
    return state


def _compile_train_step(run: TrainingRun, state: TrainState, *, batch: Batch) -> Callable:
    """Compile the train step before its first call, so that the time of the first step does not include it."""
    begin = time.perf_counter()
    done = f"step {run.resume_step} is saved" if run.resume_step else "no step was trained"
    with acting_when_stopped(lambda name: f"{done}; the same command goes on"), run.heartbeat.phase("compiling"):
        compiled = run.program.train_step.lower(state, batch).compile()
    run.writers.write_text(f"compiled the train step in {time.perf_counter() - begin:.1f} s")
    return compiled


def _due_evaluators(run: TrainingRun, step: int) -> list[Evaluator]:
    """List the evaluators that are due after `step`: the held-out loss and the caller's, each at its own interval."""
    config, due = run.config, []
    if run.is_due(step, config.training.heldout_every):
        due.append(partial(_heldout_metrics, run))
    if run.is_due(step, config.eval.every):
        due += run.evaluators
    return due


def _heldout_metrics(run: TrainingRun, params: Params) -> dict[str, float]:
    return heldout_metrics(run.program, params, sources=run.corpus.heldout, mesh=run.mesh, config=run.config.training)


def _pause_to_evaluate(run: TrainingRun, state: TrainState, *, step: int, meter: TrainingMeter) -> None:
    """Call the evaluators that are due after `step`; a stop request meanwhile saves the step, and the next session calls them."""

    def save(name: str) -> str:
        _save_checkpoint(run, state, step=step, meter=meter, for_good=True, evaluation_due=True)
        return _say_saved(run, name, step=step)

    with run.heartbeat.phase("evaluating"), acting_when_stopped(save):
        _evaluate(run, step, params=state.params, evaluators=_due_evaluators(run, step))
        _write_ledger(run, step)


def _evaluate(run: TrainingRun, step: int, *, params: Params, evaluators: Iterable[Evaluator]) -> None:
    """Call the evaluators, and write all they measure as one line of metrics."""
    values = {}
    for evaluator in evaluators:
        values |= evaluator(params)
    if values:
        run.writers.write_metrics(step, {"tokens": run.data_position(step).tokens} | values)


def _write_ledger(run: TrainingRun, step: int) -> None:
    """Print how much has been read of every source."""
    for line in ledger_table(source_totals(run.data_position(step))):
        run.writers.write_text(line)


def _write_end(run: TrainingRun) -> None:
    """Say why the run ends before training.num_steps, where it does."""
    if run.last_step < run.config.training.num_steps:
        run.writers.write_text(f"stopped after step {run.last_step} of {run.config.training.num_steps}, which is saved: "
                               f"{run.mixture.end_reason()}; raise {run.mixture.limit_options} or change the mixture to go on "
                               "from here")


def _save_checkpoint(run: TrainingRun, state: TrainState, *, step: int, meter: TrainingMeter, for_good: bool = False,
                     evaluation_due: bool = False) -> None:
    """Save a checkpoint after the metrics up to it, and plot the loss so far; `for_good` waits until that has succeeded."""
    progress = meter.progress() | {DATA_POSITION: to_dict(run.data_position(step)), EVALUATION_DUE: evaluation_due}
    save = run.saver.save_for_good if for_good else run.saver.save
    run.writers.flush()
    with run.heartbeat.phase("saving"):
        run.heartbeat.begin_to_save(run.checkpoints.folder / str(step), _bytes_per_process(state))
        save(step, state, progress=progress)
    if run.writers.active:
        with run.writers.tolerate_failure("loss.png"):
            plot_loss(run.workdir, run.config.name)


def _say_saved(run: TrainingRun, name: str, *, step: int) -> str:
    """What to say at the end because of the stop request `name`, after the checkpoint of `step` was saved for good."""
    run.writers.flush()
    return f"saved step {step}; the same command goes on from here"


def _bytes_per_process(tree: Any) -> int:
    """Bytes of arrays that each process of the run writes."""
    return sum(x.nbytes for x in jax.tree.leaves(tree)) // jax.process_count()


def _write_samples(run: TrainingRun, params: Params) -> None:
    """Write and print samples of the trained model, where the config asks for some and one process holds all parameters."""
    training = run.config.training
    if not training.sample_tokens or not run.writers.active or jax.process_count() > 1:
        return
    texts = make_samples(run.program.model, params, tokenizer=run.corpus.tokenizer, config=training)
    for text in texts:
        run.writers.write_text(f"--- a sample ---\n{text}")
    with run.writers.tolerate_failure(SAMPLES_FILE):
        write_samples(run.workdir, texts)
