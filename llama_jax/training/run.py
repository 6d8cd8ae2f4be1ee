"""A training run with all its parts opened and checked: model, data, checkpoints and outputs."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from llama_jax.config import Config
from llama_jax.data.corpus import Corpus, open_corpus
from llama_jax.data.mixture import Mixture
from llama_jax.data.position import DataPosition
from llama_jax.errors import ConfigError
from llama_jax.files.lock import only_writer
from llama_jax.formats.base import WeightSource
from llama_jax.formats.checkpoints import Checkpoints
from llama_jax.model.accounting import MFU_FORMULA, parameter_count
from llama_jax.parallel.distributed import is_first_process
from llama_jax.parallel.mesh import make_mesh
from llama_jax.parallel.xla_flags import describe_xla_flags
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.training.checkpoint_saver import CheckpointSaver
from llama_jax.training.compiled import Program, build
from llama_jax.training.heartbeat import Heartbeat
from llama_jax.training.init_from import open_initial_weights, required_tokenizer
from llama_jax.training.memory_bound import check_memory
from llama_jax.training.metrics import total_peak_flops
from llama_jax.training.run_dir import open_run_dir, restore_data_position, write_run_config
from llama_jax.training.step import Params, TrainState
from llama_jax.training.writers import MetricWriters

Evaluator = Callable[[Params], dict[str, float]]
"""(params) -> metrics by name: a measurement of the current parameters, called during training."""


class TrainingRun(NamedTuple):
    """The parts of an opened training run, which stay the same while it trains; only the TrainState changes."""

    config: Config
    workdir: Path
    """The run directory."""
    mesh: Mesh
    program: Program
    """The jitted train step and eval step."""
    corpus: Corpus
    mixture: Mixture
    """The rows that are trained on from `resume_step` on."""
    initial_weights: WeightSource | None
    """Weights that training starts with; None where it starts from the seed or resumes."""
    checkpoints: Checkpoints
    saver: CheckpointSaver
    """What saves them while the run trains."""
    resume_step: int
    """Steps that earlier sessions of the run have done."""
    restored: list[TrainState]
    """The state after these steps, until training takes it out and donates it."""
    writers: MetricWriters
    heartbeat: Heartbeat
    evaluators: tuple[Evaluator, ...]
    peak_flops: float
    """FLOP/s of all devices together, which MFU is measured against."""

    @property
    def last_step(self) -> int:
        """Number of the run's last step: training.num_steps, or the last one before a limit of epochs ends the run."""
        training = self.config.training
        return self.resume_step + self.mixture.steps(training.num_steps - self.resume_step, batch_size=training.batch_size)

    def is_due(self, step: int, every: int) -> bool:
        """Whether something that happens every `every` steps (0: never) and after the last step is due after `step`."""
        return step == self.last_step or (every > 0 and step % every == 0)

    def mixture_notes(self) -> dict[int, list[str]]:
        """Sentences on the mixture's changes, by the step in which they happen."""
        notes: dict[int, list[str]] = {}
        for row, sentence in self.mixture.notes():
            notes.setdefault(self.resume_step + row // self.config.training.batch_size + 1, []).append(sentence)
        return notes

    def data_position(self, step: int) -> DataPosition:
        """The data position after `step`: how much of every source the run has read."""
        return self.mixture.position((step - self.resume_step) * self.config.training.batch_size)


@contextmanager
def open_training_run(config: Config, workdir: Path, *, evaluators: Iterable[Evaluator] = ()) -> Iterator[TrainingRun]:
    """Context of an opened run: opens and checks all its parts, writes the head of its log, and closes them at the end.

    The block runs under the run's mesh. Mistakes in a config, its data or its checkpoint are found here, before anything is
    compiled.

    Raises:
        ConfigError: the config does not suit the devices, the run directory, its checkpoint, the initial weights or the data.
        DataError: data, tokenizer or checkpoint are missing, damaged or do not fit each other, or another process trains here.
    """
    with ExitStack() as opened:
        if is_first_process():
            opened.enter_context(only_writer(workdir, option="--workdir"))
        yield opened.enter_context(_opened_run(config, workdir, evaluators=evaluators))


@contextmanager
def _opened_run(config: Config, workdir: Path, *, evaluators: Iterable[Evaluator]) -> Iterator[TrainingRun]:
    """See `open_training_run`; the run directory is locked."""
    mesh = make_mesh(config.mesh)
    check_memory(config, mesh)
    program = build(config, mesh)
    weights = open_initial_weights(config, workdir)
    tokenizer = None
    if weights is not None:
        tokenizer = required_tokenizer(weights, config.data.tokenizer)
    checkpoints, resume_step, notes, state = open_run_dir(config, workdir, abstract_state=program.abstract_state)
    heartbeat = Heartbeat(workdir, active=jax.process_index() == 0, hang_seconds=config.training.hang_seconds)
    with closing(heartbeat), closing(checkpoints):
        corpus = _open_shared_corpus(config, workdir, tokenizer=tokenizer)
        position = restore_data_position(checkpoints, resume_step, workdir=workdir, tokenizer=tokenizer)
        mixture = corpus.mixture(seed=config.training.seed, position=position)
        _check_first_step(config, mixture, resume_step=resume_step)
        write_run_config(config, workdir)
        writers = MetricWriters(workdir, config.training.num_steps, start=resume_step, active=jax.process_index() == 0)
        peak_flops, peak_source = total_peak_flops(config)
        run = TrainingRun(
            config=config, workdir=workdir, mesh=mesh, program=program, corpus=corpus, mixture=mixture, initial_weights=weights,
            checkpoints=checkpoints, saver=CheckpointSaver(checkpoints, config, report=writers.write_text),
            resume_step=resume_step, restored=[state] if resume_step else [], writers=writers, heartbeat=heartbeat,
            evaluators=tuple(evaluators), peak_flops=peak_flops,
        )
        with closing(writers), jax.set_mesh(mesh):
            for line in [*notes, *_describe_run(run, peak_source)]:
                writers.write_text(line)
            yield run


def _check_first_step(config: Config, mixture: Mixture, *, resume_step: int) -> None:
    """Raise ConfigError where a new run has too little text for one step within its limits of epochs."""
    if resume_step == 0 and mixture.steps(1, batch_size=config.training.batch_size) == 0:
        raise ConfigError(f"no step can be trained: {mixture.end_reason()} within the first {config.training.batch_size} rows; "
                          f"raise {mixture.limit_options}, or set --data.on_max_epochs warn.")


def _open_shared_corpus(config: Config, workdir: Path, *, tokenizer: Tokenizer | None) -> Corpus:
    """The corpus of a run of one or more processes; the first process prepares it while the others wait."""
    if jax.process_index() > 0:
        multihost_utils.sync_global_devices("data")
    corpus = open_corpus(config.data, config.model.vocab_size, workdir=workdir, given=tokenizer, padded=bool(config.init_from))
    if jax.process_count() > 1 and jax.process_index() == 0:
        multihost_utils.sync_global_devices("data")
    return corpus


def _describe_run(run: TrainingRun, peak_source: str) -> list[str]:
    """The head of the log: model, devices, mesh, attention backend, compiler flags, data and the peak that MFU refers to."""
    config, corpus, devices = run.config, run.corpus, jax.devices()
    axes = " x ".join(f"{axis} {size}" for axis, size in run.mesh.shape.items())
    sources = [f"{source.name} {share:.1%} ({source.manifest.tokens:,} tokens, {source.manifest.documents:,} documents)"
               for source, share in zip(corpus.sources, run.mixture.shares(0), strict=True)]
    lines = [
        f"{config.name}: {parameter_count(config.model):,} parameters, {config.training.num_steps:,} steps of "
        f"{config.training.batch_size} x {config.data.sequence_length} tokens on {len(devices)} {devices[0].device_kind} "
        "device(s)",
        f"mesh: {axes}, {jax.process_count()} process(es)",
        f"attention: {run.program.attention}",
        *describe_xla_flags(),
        f"data: {'; '.join(sources)}",
        *corpus.notes,
        f"{MFU_FORMULA}; peak {run.peak_flops / 1e12:.3g} TFLOP/s ({peak_source})",
    ]
    if run.last_step < config.training.num_steps:
        lines.append(f"this run ends after step {run.last_step:,}, because {run.mixture.end_reason()}")
    if run.initial_weights is not None:
        lines.append(f"weights: {run.initial_weights.format} {config.init_from}; tokenizer: {corpus.tokenizer}")
    return lines
