"""An ablation study as frozen dataclasses: arms that are trained on the same tokens, and what is asked of them."""

from dataclasses import dataclass

from llama_jax.config.schema import Config


@dataclass(frozen=True)
class Arm:
    """One variant of a study: a name and the complete config of its training run."""

    name: str
    """Name in the report, and of the folder of its runs."""
    config: Config
    """Every choice of the run; the seed is set by the study."""
    starts_from: str = ""
    """Name of the arm whose last checkpoint of the same seed this one starts with; key-value heads are mean-pooled where it has
    fewer (up-training, GQA, arXiv 2305.13245, section 2.1). Empty: random weights."""


@dataclass(frozen=True)
class Study:
    """A claim of a paper as an experiment: every arm is trained once per seed and compared with the baseline."""

    name: str
    """Name of the study, and of its folder below runs/."""
    paper: str
    """Whose claim it is: authors, year, arXiv number."""
    question: str
    """What the study asks, in one sentence."""
    expected: str
    """What the paper reports, in one sentence: the direction that is expected."""
    hours: str
    """How long the study takes, and on what hardware."""
    arms: tuple[Arm, ...]
    """The variants, in the order in which tables list them where nothing else orders them."""
    baseline: str
    """Name of the arm that the others are compared with."""
    lengths: tuple[int, ...] = ()
    """Row lengths in tokens, beyond the trained one, at which the loss by position is measured after training."""
    decode: bool = False
    """Whether the speed of decoding is measured after training."""
