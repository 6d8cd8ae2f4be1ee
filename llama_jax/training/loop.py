"""fit: the one impure room. It orders data, steps, held-out text, checkpoints and writers, and computes nothing."""

import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from llama_jax.config import Config, to_dict
from llama_jax.data.corpus import Corpus, open_corpus
from llama_jax.data.loader import load_batches, load_heldout
from llama_jax.data.mixture import Mixture
from llama_jax.data.position import DataPosition
from llama_jax.errors import LlamaError
from llama_jax.formats.base import WeightSource
from llama_jax.formats.checkpoints import Checkpoints
from llama_jax.inference.generate import long_text
from llama_jax.inference.sampling import Sampling
from llama_jax.model.accounting import MFU_FORMULA, parameter_count
from llama_jax.parallel.distributed import exit_at_once, first_line, lost_process_message
from llama_jax.parallel.mesh import make_mesh
from llama_jax.parallel.xla_flags import describe_xla_flags
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.training.compiled import Program, build
from llama_jax.training.init_from import starting_point, take_params, tokenizer_for
from llama_jax.training.metrics import Meter, bits_per_byte, perplexity, total_peak
from llama_jax.training.profiling import Profiler
from llama_jax.training.run_dir import POSITION, open_run, position_at, record
from llama_jax.training.step import Params, TrainState
from llama_jax.training.writers import Writers, plot_loss

Evaluator = Callable[[Params], dict[str, float]]


class Run(NamedTuple):
    """What a run consists of."""

    config: Config
    workdir: Path
    mesh: Mesh
    program: Program
    corpus: Corpus
    checkpoints: Checkpoints
    writers: Writers
    evaluators: tuple[Evaluator, ...]
    peak: float
    """FLOP/s of all devices together."""
    start: int
    """Steps done before."""
    mixture: Mixture
    """What is read from there on."""

    def position(self, step: int) -> DataPosition:
        """What has been read after `step`."""
        return self.mixture.position((step - self.start) * self.config.training.batch_size)


def fit(config: Config, workdir: Path, evaluators: Iterable[Evaluator] = ()) -> TrainState:
    """Train to the last step, resuming from the newest checkpoint of `workdir`; returns the final state.

    SIGTERM and Ctrl-C save and return early. Raises ConfigError and DataError before anything is compiled.
    """
    mesh = make_mesh(config.mesh)
    program = build(config, mesh)
    source = starting_point(config, workdir)
    tokenizer = tokenizer_for(source, config.data.tokenizer) if source else None
    checkpoints, start, notes = open_run(config, workdir)
    with closing(checkpoints):
        corpus = shared_corpus(config, workdir, tokenizer)
        position = position_at(checkpoints, start, workdir, tokenizer)
        mixture = Mixture(corpus.sources, corpus.shares, seed=config.training.seed, position=position)
        record(config, workdir)
        writers = Writers(workdir, config.training.num_steps, start=start, active=jax.process_index() == 0)
        peak, peak_source = total_peak(config)
        run = Run(config, workdir, mesh, program, corpus, checkpoints, writers, tuple(evaluators), peak, start, mixture)
        with closing(writers), jax.set_mesh(mesh):
            for line in [*notes, *describe(config, corpus, program, mesh),
                         f"{MFU_FORMULA}; peak {peak / 1e12:.3g} TFLOP/s ({peak_source})"]:
                writers.text(line)
            try:
                return go_on(run, source)
            except jax.errors.JaxRuntimeError as error:
                if jax.process_count() == 1:
                    raise
                exit_at_once(f"{lost_process_message()} ({first_line(error)}).")


def go_on(run: Run, source: WeightSource | None) -> TrainState:
    """From the checkpoint of the run's start, or step 0 and the weights of `source`, to the end; returns the final state."""
    state = run.checkpoints.restore(run.start, run.program.abstract_state) if run.start else run.program.init()
    if source:
        run.writers.text(f"weights: {source.format} {run.config.init_from}; tokenizer: {run.corpus.tokenizer}")
        state = take_params(state, source)
    state = train(run, state)
    if int(state.step) == run.config.training.num_steps:
        write_samples(run, state.params)
    return state


def shared_corpus(config: Config, workdir: Path, tokenizer: Tokenizer | None) -> Corpus:
    """The corpus; the first process prepares it while the others wait."""
    if jax.process_index() > 0:
        multihost_utils.sync_global_devices("data")
    corpus = open_corpus(config.data, config.model.vocab_size, workdir=workdir, given=tokenizer, padded=bool(config.init_from))
    if jax.process_count() > 1 and jax.process_index() == 0:
        multihost_utils.sync_global_devices("data")
    return corpus


def describe(config: Config, corpus: Corpus, program: Program, mesh: Mesh) -> list[str]:
    """What is about to run, for the head of the log."""
    c = config
    devices = jax.devices()
    rows = [f"{source.name} {share:.1%} ({source.manifest.tokens:,} tokens, {source.manifest.documents:,} documents)"
            for source, share in zip(corpus.sources, Mixture.normalise(corpus.shares), strict=True)]
    return [
        f"{c.name}: {parameter_count(c.model):,} parameters, {c.training.num_steps:,} steps of {c.training.batch_size} x "
        f"{c.data.sequence_length} tokens on {len(devices)} {devices[0].device_kind} device(s)",
        f"mesh: {' x '.join(f'{axis} {size}' for axis, size in mesh.shape.items())}, {jax.process_count()} process(es)",
        f"attention: {program.attention}",
        *describe_xla_flags(),
        f"data: {'; '.join(rows)}",
        *corpus.notes,
    ]


def train(run: Run, state: TrainState) -> TrainState:
    """Dispatch step n, then read the metrics of step n - 1 while n runs."""
    config, start, last = run.config, run.start, run.config.training.num_steps
    meter = Meter(config, run.mixture, run.peak, run.checkpoints.progress(start) if start else {}, start)
    batches = load_batches(run.mixture, run.mesh, batch_size=config.training.batch_size, start=0, stop=last - start)
    train_step, pending = None, None
    with stop_requests() as requests, closing(Profiler(config.profile, run.workdir)) as profiler:
        if note := profiler.missed(last):
            run.writers.text(note)
        for step, batch in enumerate(batches, start + 1):
            if train_step is None:
                train_step = compile_step(run, state, batch)
                meter.begin(start)
            if profiler.starts(step):
                pending = report(run, meter, pending)
                profiler.start(step)
                meter.restart(step - 1)
            state, metrics = train_step(state, batch)
            report(run, meter, pending)
            pending = (step, metrics)
            # Whatever pauses training first hears of the step just dispatched, and the clock starts again after it.
            if profiler.stops(step, last):
                pending = report(run, meter, pending)
                run.writers.text(profiler.stop(step))
                meter.restart(step)
            if evaluations := measures(run, step):
                pending = report(run, meter, pending)
                evaluate(run, evaluations, state.params, step)
                meter.restart(step)
            stop = agreed(requests, due(step, config.training.log_every, last))
            if stop or due(step, config.checkpoint.every, last):
                pending = report(run, meter, pending)
                save(run, state, step, meter)
                meter.restart(step)
            if stop:
                run.writers.text(f"{stop[0]}: saved step {step}; the same command goes on from here")
                break
    return state


def due(step: int, every: int, last: int) -> bool:
    """Whether what happens every `every` steps (0: never) and at the last step happens now."""
    return step == last or (every > 0 and step % every == 0)


@contextmanager
def stop_requests() -> Iterator[list[str]]:
    """A list that SIGTERM and the first Ctrl-C add to; a second Ctrl-C interrupts as usual."""
    requests: list[str] = []

    def ask(number: int, frame) -> None:
        requests.append(signal.Signals(number).name)
        signal.signal(number, previous[number])

    try:
        previous = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread: signals belong to the caller
        previous = {}
    try:
        yield requests
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def agreed(requests: list[str], now: bool) -> list[str]:
    """The requests as they are at this moment, in every process of the run; several processes talk only where `now`."""
    if jax.process_count() == 1:
        return list(requests)
    if not now:
        return []
    asked = multihost_utils.process_allgather(np.array([len(requests)]))
    return (list(requests) or ["another process was asked to stop"]) if asked.any() else []


def compile_step(run: Run, state: TrainState, batch) -> Callable:
    """The compiled train step; compilation is timed apart, so that no step's clock holds it."""
    begin = time.perf_counter()
    compiled = run.program.train_step.lower(state, batch).compile()
    run.writers.text(f"compiled the train step in {time.perf_counter() - begin:.1f} s")
    return compiled


def report(run: Run, meter: Meter, pending: tuple[int, dict] | None) -> None:
    """Read a pending step's metrics, which waits for the step, and write its line where one is due; nothing is pending then."""
    if pending is None:
        return
    step, metrics = pending
    values = {name: float(value) for name, value in metrics.items()}
    if not math.isfinite(values["loss"]) or not math.isfinite(values["grad_norm"]):
        raise LlamaError(f"step {step}: loss {values['loss']}, gradient norm {values['grad_norm']}; nothing after the last "
                         f"checkpoint ({run.checkpoints.latest()}) was kept. Lower optimizer.peak_lr or look at the data.")
    meter.add(values)
    if due(step, run.config.training.log_every, run.config.training.num_steps):
        run.writers.metrics(step, meter.line(step, values))


def measures(run: Run, step: int) -> list[Evaluator]:
    """What is measured after `step`: the held-out loss, and what the caller's evaluators tell."""
    config, last = run.config, run.config.training.num_steps
    heldout = [partial(heldout_loss, run)] if due(step, config.training.heldout_every, last) else []
    return [*heldout, *(run.evaluators if due(step, config.eval.every, last) else ())]


def evaluate(run: Run, evaluations: Iterable[Evaluator], params: Params, step: int) -> None:
    """Their numbers as one line."""
    values = {name: value for evaluation in evaluations for name, value in evaluation(params).items()}
    if values:
        run.writers.metrics(step, {"tokens": run.position(step).tokens} | values)


def heldout_loss(run: Run, params: Params) -> dict[str, float]:
    """Loss over each source's held-out text."""
    c = run.config.training
    values = {}
    for source in run.corpus.heldout:
        batches = load_heldout(source, run.mesh, batch_size=c.batch_size, limit=c.heldout_batches)
        sums = [run.program.eval_step(params, batch) for batch in batches]
        nats, tokens = (sum(float(s[name]) for s in sums) for name in ("nll", "tokens"))
        loss = nats / tokens if tokens else math.nan
        suffix = "" if len(run.corpus.heldout) == 1 else f"/{source.name}"
        values |= {
            "heldout_loss" + suffix: loss,
            "heldout_perplexity" + suffix: perplexity(loss),
            "heldout_bits_per_byte" + suffix: bits_per_byte(loss, source.predicted_per_byte),
        }
    return values


def save(run: Run, state: TrainState, step: int, meter: Meter) -> None:
    """A checkpoint in the background, and the picture of the loss so far."""
    run.checkpoints.save(step, state, run.config, progress=meter.state() | {POSITION: to_dict(run.position(step))})
    if run.writers.active:
        plot_loss(run.workdir, run.config.name)


def write_samples(run: Run, params: Params) -> None:
    """samples.txt: continuations of the configured prompts."""
    c = run.config.training
    if not c.sample_tokens or not run.writers.active or jax.process_count() > 1:
        return
    sampling = Sampling(max_new_tokens=c.sample_tokens, temperature=0.8, top_p=1.0, seed=c.seed % 2**32)
    texts = [long_text(run.program.model, params, run.corpus.tokenizer, prompt, sampling, place=place)
             for place, prompt in enumerate(c.sample_prompts)]
    (run.workdir / "samples.txt").write_text("\n\n---\n\n".join(texts) + "\n")
    for text in texts:
        run.writers.text(f"--- a sample ---\n{text}")
