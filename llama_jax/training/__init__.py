"""Training a model: loss, optimizer and train step as pure functions, and `fit`, which runs them from a config to the last step.

Names are imported from their modules on first use, so that using the optimizer, for example, does not import matplotlib.
"""

from typing import TYPE_CHECKING

from llama_jax.lazy import lazy_getattr

if TYPE_CHECKING:
    from llama_jax.training.compiled import Program, build
    from llama_jax.training.loop import fit
    from llama_jax.training.loss import next_token_loss
    from llama_jax.training.loss_plot import plot_loss
    from llama_jax.training.metrics import bits_per_byte, perplexity
    from llama_jax.training.metrics_file import read_metrics
    from llama_jax.training.optimizer import learning_rate, make_optimizer
    from llama_jax.training.run import Evaluator, TrainingRun
    from llama_jax.training.step import TrainState, init_state, make_eval_step, make_train_step

_MODULES = {
    "Evaluator": "run",
    "Program": "compiled",
    "TrainState": "step",
    "TrainingRun": "run",
    "bits_per_byte": "metrics",
    "build": "compiled",
    "fit": "loop",
    "init_state": "step",
    "learning_rate": "optimizer",
    "make_eval_step": "step",
    "make_optimizer": "optimizer",
    "make_train_step": "step",
    "next_token_loss": "loss",
    "perplexity": "metrics",
    "plot_loss": "loss_plot",
    "read_metrics": "metrics_file",
}
"""The module of each name, which is imported when the name is first asked for."""

__all__ = [
    "Evaluator", "Program", "TrainState", "TrainingRun", "bits_per_byte", "build", "fit", "init_state", "learning_rate",
    "make_eval_step", "make_optimizer", "make_train_step", "next_token_loss", "perplexity", "plot_loss", "read_metrics",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_getattr(__name__, _MODULES)
