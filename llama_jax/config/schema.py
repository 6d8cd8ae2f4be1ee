"""The configuration of a run: optimizer, data, training, mesh, checkpoints, evaluation, and `Config`, which holds them all."""

import dataclasses
import os
from dataclasses import dataclass, field
from typing import Literal

from llama_jax.config.fields import check_choices as _check_choices
from llama_jax.config.fields import check_numbers as _check_numbers
from llama_jax.config.fields import require as _require
from llama_jax.config.mixture import EpochLimit, MixtureStage, parse_epoch_limits, parse_sources, parse_stages
from llama_jax.config.model import ComputeConfig, ModelConfig

Verification = Literal["never", "sample", "full"]
"""How much of a checkpoint is compared with its checksums: nothing, a random part, or everything."""


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with warmup and cosine decay (section 2.3)."""

    peak_lr: float = 3e-4
    """Peak learning rate, reached by the last update of the warmup."""
    warmup_steps: int = 2000
    """Steps of linear warmup from 0."""
    final_lr_ratio: float = 0.1
    """Learning rate of the last update as a fraction of the peak."""
    beta1: float = 0.9
    """Exponential decay of the first moment."""
    beta2: float = 0.95
    """Exponential decay of the second moment."""
    eps: float = 1e-8
    """Added to the square root of the second moment."""
    weight_decay: float = 0.1
    """Decoupled weight decay of matrices; norms and embeddings are never decayed."""
    clip_norm: float = 1.0
    """Global gradient norm above which gradients are scaled down."""
    moment_dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype in which AdamW's two moments are stored; bfloat16 halves their memory, and updates are still computed in float32."""

    def __post_init__(self):
        _check_choices(self, "optimizer")
        _require(self.peak_lr > 0, f"optimizer.peak_lr must be positive, got {self.peak_lr}.")
        _require(self.warmup_steps >= 0, f"optimizer.warmup_steps must be at least 0, got {self.warmup_steps}.")
        _require(0 <= self.final_lr_ratio <= 1,
                 f"optimizer.final_lr_ratio must lie in [0, 1], got {self.final_lr_ratio}.")
        for name in ("beta1", "beta2"):
            _require(0 <= getattr(self, name) < 1, f"optimizer.{name} must lie in [0, 1), got {getattr(self, name)}.")
        for name in ("eps", "clip_norm"):
            _require(getattr(self, name) > 0, f"optimizer.{name} must be positive, got {getattr(self, name)}.")
        _require(self.weight_decay >= 0, f"optimizer.weight_decay must be at least 0, got {self.weight_decay}.")


@dataclass(frozen=True)
class DataConfig:
    """Training and held-out data, the tokenizer, and the length of training rows."""

    sources: tuple[str, ...] = ("embedded:tinyshakespeare",)
    """Training sources, each PATH or PATH=SHARE: a prepared folder, or raw text (.txt .jsonl .parquet, also .gz .zst .xz, or a
    folder of them), which is prepared into the run directory. Shares are fractions of the training tokens; without shares,
    sources are weighted by their size."""
    stages: tuple[str, ...] = ()
    """Shares that change during training, each TOKENS: NAME=SHARE NAME=SHARE ..., as "2e9: wikipedia=0.5 books=0.5": from the
    first row after that many tokens of the run on, these shares hold, and sources that are not named are not read. NAME is a
    source's path, or its last part without suffixes. Until the first stage begins, the shares of sources hold."""
    max_epochs: float = 0.0
    """How many times a source may be read, which need not be a whole number; 0: no limit."""
    source_max_epochs: tuple[str, ...] = ()
    """The same for single sources, each NAME=EPOCHS, as books=2.23; the others have the limit max_epochs. NAME as in stages."""
    on_max_epochs: Literal["stop", "warn", "reweigh"] = "stop"
    """What happens where a source would be read more often than its limit. stop: training ends before that step and saves a
    checkpoint; warn: the log says so and training goes on; reweigh: the source is not read any more, and the others share its
    part in proportion."""
    heldout: tuple[str, ...] = ()
    """Held-out sources (paths as in sources), in addition to the last heldout_fraction of every raw source."""
    heldout_fraction: float = 0.0
    """Fraction at the end of each raw source that is not trained on but used for the held-out loss."""
    document_separator: str = ""
    """Text between the documents of a raw .txt file, such as <|endoftext|> or a blank line (two line ends); empty: a file is one
    document."""
    tokenizer: str = ""
    """Folder or file of the tokenizer; empty: a SentencePiece tokenizer with model.vocab_size pieces is trained on the raw
    sources."""
    sequence_length: int = 2048
    """Tokens T per row."""

    def __post_init__(self):
        _require(len(self.sources) > 0, "data.sources is empty; name at least one PATH or PATH=SHARE.")
        _require(self.sequence_length > 1, f"data.sequence_length must be at least 2, got {self.sequence_length}.")
        _require(0 <= self.heldout_fraction < 1,
                 f"data.heldout_fraction must lie in [0, 1), got {self.heldout_fraction}.")
        parsed = self.shares()
        given = [share is not None for _, share in parsed]
        _require(all(given) or not any(given), f"data.sources: give a share to every source or to none, got {self.sources}.")
        names = [os.path.normpath(path) for path in (*(path for path, _ in parsed), *self.heldout)]
        for name in names:
            _require(names.count(name) == 1, f"data.sources and data.heldout name {name} twice; give every source once, "
                     "and keep what is held out apart from what is trained on.")
        _check_choices(self, "data")
        self._check_mixture()

    def shares(self) -> list[tuple[str, float | None]]:
        """The training sources as (path, share) pairs; the share is None where none is given."""
        return parse_sources(self.sources)

    def mixture_stages(self) -> list[MixtureStage]:
        """The stages after the first, whose shares are those of `sources`."""
        return parse_stages(self.stages, [path for path, _ in self.shares()])

    def epoch_limits(self) -> tuple[EpochLimit, ...]:
        """How often each source may be read."""
        return parse_epoch_limits(self.source_max_epochs, [path for path, _ in self.shares()], otherwise=self.max_epochs)

    def _check_mixture(self) -> None:
        """Raise ConfigError where a source is never read, nothing is read at first, or a limit is no number of epochs."""
        later = {number for stage in self.mixture_stages() for number, share in enumerate(stage.shares) if share}
        for number, (path, share) in enumerate(self.shares()):
            _require(share != 0 or number in later, f"data.sources: the share of {path!r} must be positive, got 0; it may be 0 "
                     "where data.stages gives the source a share later.")
        _require(any(share != 0 for _, share in self.shares()),
                 "data.sources: every share is 0; the first tokens come from sources with a share.")
        _require(0 <= self.max_epochs < float("inf"),
                 f"data.max_epochs must be at least 0 (no limit), got {self.max_epochs}.")
        self.epoch_limits()


@dataclass(frozen=True)
class TrainingConfig:
    """Length of the run, batch size, loss, and how often it reports."""

    num_steps: int = 10_000
    """Optimizer steps of the whole run."""
    batch_size: int = 8
    """Rows per optimizer step, over all devices and micro-batches."""
    accumulation_steps: int = 1
    """Micro-batches per optimizer step; gradients are summed over them, every token weighing the same."""
    seed: int = 0
    """Seed of the initial parameters, of the order of the data, and of samples."""
    init_seed: int = -1
    """Seed of the initial parameters alone, so that runs can differ in them and read the same tokens; -1: the same as seed."""
    z_loss: float = 0.0
    """Weight of the z-loss log(Z)^2, where Z is the softmax's denominator: it keeps logits from drifting. The paper has none."""
    separate_documents: bool = True
    """Whether tokens attend to their own document alone, as in Llama 3. False: to everything before them in the row, with
    positions counted over the whole row (no published LLaMA code says what LLaMA did)."""
    log_every: int = 10
    """Steps between lines of metrics, each with the mean loss since the previous line."""
    heldout_every: int = 0
    """Steps between held-out evaluations; 0: only at the end."""
    heldout_batches: int = 0
    """Batches per held-out evaluation; 0: all of the held-out text."""
    sample_prompts: tuple[str, ...] = ("\n",)
    """Prompts continued at the end of the run into samples.txt."""
    sample_tokens: int = 256
    """Tokens sampled for each prompt; 0: no samples."""
    hang_seconds: int = 3600
    """Seconds without a finished step after which a run counts as hanging: it prints the stacks of all threads and ends with exit
    code 1, so that a supervisor can start it again. Compilation, evaluation and checkpoints do not count. 0: never."""

    def __post_init__(self):
        for name in ("num_steps", "batch_size", "accumulation_steps", "log_every"):
            _require(getattr(self, name) > 0, f"training.{name} must be positive, got {getattr(self, name)}.")
        for name in ("seed", "z_loss", "heldout_every", "heldout_batches", "sample_tokens", "hang_seconds"):
            _require(getattr(self, name) >= 0, f"training.{name} must be at least 0, got {getattr(self, name)}.")
        _require(self.init_seed >= -1, f"training.init_seed must be at least 0, or -1 to be training.seed, got {self.init_seed}.")
        _require(self.batch_size % self.accumulation_steps == 0,
                 f"training.batch_size must be a multiple of training.accumulation_steps, got {self.batch_size} "
                 f"and {self.accumulation_steps}.")

    @property
    def parameter_seed(self) -> int:
        """Seed of the initial parameters, with the default of init_seed resolved."""
        return self.seed if self.init_seed == -1 else self.init_seed


@dataclass(frozen=True)
class MeshConfig:
    """Number of devices along each mesh axis; one of them may be -1 and takes all that are left."""

    data: int = -1
    """Data parallelism: copies of the model that compute different rows."""
    fsdp: int = 1
    """Fully sharded data parallelism: shards of parameters and optimizer state; rows are split over this axis too."""
    tensor: int = 1
    """Tensor parallelism: shards of heads, feed-forward width and vocabulary, and between them of the tokens of a row."""
    sequence: int = 1
    """Sequence parallelism: shards of the tokens of a row everywhere, for long rows; parameters are split over this axis too."""

    def __post_init__(self):
        sizes = dataclasses.asdict(self)
        _require(all(size == -1 or size > 0 for size in sizes.values()) and list(sizes.values()).count(-1) <= 1,
                 "mesh axes must be positive, at most one of them -1, got "
                 f"{' '.join(f'{axis}={size}' for axis, size in sizes.items())}.")


@dataclass(frozen=True)
class CheckpointConfig:
    """When checkpoints are saved and which of them are kept; the last step is always saved."""

    every: int = 1000
    """Steps between checkpoints."""
    keep: int = 2
    """Number of newest checkpoints that are kept."""
    keep_every: int = 0
    """Checkpoints at multiples of this step are never removed; 0: none."""
    verify: Verification = "full"
    """How much of the checkpoint that a run resumes from is compared with its checksums: full: every array; sample: one in eight,
    chosen at random; never: none. One that is damaged is set aside, and the one before it is used."""
    retry_seconds: float = 600.0
    """Seconds for which the checkpoint of the last step, or of a requested stop, is tried again where the storage fails, before
    the run gives it up. Earlier in the run, training goes on meanwhile."""

    def __post_init__(self):
        _check_choices(self, "checkpoint")
        _require(0 <= self.retry_seconds < float("inf"),
                 f"checkpoint.retry_seconds must be at least 0, got {self.retry_seconds}.")
        _require(self.every > 0 and self.keep > 0 and self.keep_every >= 0,
                 "checkpoint.every and checkpoint.keep must be positive and checkpoint.keep_every at least 0, got "
                 f"{self.every}, {self.keep} and {self.keep_every}.")


@dataclass(frozen=True)
class EvalConfig:
    """Evaluation tasks that run on the current parameters during training."""

    tasks: tuple[str, ...] = ()
    """Names of tasks and groups; empty: none."""
    every: int = 0
    """Steps between evaluations; 0: only at the end."""
    data_dir: str = "data/eval"
    """Folder with the benchmarks' data files, as eval.py reads it."""
    limit: int = 0
    """Number of items per task, the first ones; 0: all."""

    def __post_init__(self):
        _require(min(self.every, self.limit) >= 0, f"eval.every and eval.limit must be at least 0, got {self}.")


@dataclass(frozen=True)
class Config:
    """The complete configuration of a training run."""

    name: str = ""
    """Name of the run; empty: the config file's name."""
    init_from: str = ""
    """Folder of weights to start from with a fresh optimizer: a run directory, DIR/checkpoints/STEP, a Hugging Face or a Meta
    folder; empty: random weights. A run that has a checkpoint of its own resumes from that instead."""
    profile: str = ""
    """Steps to trace for a profiler, as STEP:COUNT (first step and number of steps); written to DIR/profile."""
    model: ModelConfig = field(default_factory=ModelConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)

    def __post_init__(self):
        _check_numbers(self)
        first, _, count = self.profile.partition(":")
        _require(not self.profile or (first.isdecimal() and count.isdecimal() and int(first) > 0 and int(count) > 0),
                 f"profile must read STEP:COUNT with positive numbers, as 10:3 for steps 10 to 12, got {self.profile!r}.")
        _require(self.data.sequence_length <= self.model.max_length,
                 f"data.sequence_length must not exceed model.max_length, got {self.data.sequence_length} "
                 f"and {self.model.max_length}.")
        _require(self.optimizer.warmup_steps < self.training.num_steps,
                 f"optimizer.warmup_steps must be below training.num_steps, got {self.optimizer.warmup_steps} "
                 f"and {self.training.num_steps}; the cosine starts when the warmup ends.")
