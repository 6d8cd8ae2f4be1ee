"""A study: variants of one training run, its arms, that are trained on the same tokens with several seeds and compared."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

from llama_jax.config.fields import require as _require
from llama_jax.config.fields import to_dict
from llama_jax.config.schema import Config
from llama_jax.errors import ConfigError, nearest

_ARM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+=-]*")
"""Names of arms, which are names of folders too."""


@dataclass(frozen=True)
class Arm:
    """One variant of a study: the config of its runs, which differ in their seed alone."""

    name: str
    """Its name in reports, and of the folder of its runs."""
    config: Config = field(default_factory=Config)
    """The run. Its `name` and `training.init_seed` are set by the study; its data are the same in every arm."""
    starts_from: str = ""
    """Arm whose last checkpoint of the same seed it starts with, kv heads averaged where it has fewer; empty: random weights."""


def model_arm(base: Config, name: str, **changes: Any) -> Arm:
    """An arm whose model differs from that of the config `base` in the fields `changes`."""
    return Arm(name, replace(base, model=replace(base.model, **changes)))


@dataclass(frozen=True)
class Study:
    """A question, the arms that answer it, and what is measured of them beside the held-out loss."""

    name: str = ""
    """Name of the study and of its folder; empty: the config file's name."""
    paper: str = ""
    """The paper whose claim is tested."""
    question: str = ""
    """What the study asks, in one sentence."""
    expected: str = ""
    """What the paper found: the direction of the difference that is expected."""
    hours: str = ""
    """How long all runs take, and on what hardware."""
    arms: tuple[Arm, ...] = ()
    """The variants, in the order of the report."""
    baseline: str = ""
    """Arm that the others are compared with. Its batch size and row length are those of the held-out batches."""
    lengths: tuple[int, ...] = ()
    """Lengths of rows, in tokens, on which the held-out loss by position is measured after training; they may exceed the
    length of training rows."""
    decode: bool = False
    """Whether the speed of decoding is measured after training."""
    path: bool = False
    """Whether every arm is one change of the arm before it, with which the report then compares it, too."""

    def __post_init__(self):
        _require(len(self.arms) > 0, "the study has no arms; name at least one.")
        names = [arm.name for arm in self.arms]
        for name in names:
            _require(bool(_ARM_NAME.fullmatch(name)), f"the arm {name!r} cannot be the name of a folder; use letters, digits and "
                     "_ . + = -, a letter or digit first.")
        for one, other in combinations(names, 2):
            _require(one.casefold() != other.casefold(), f"two arms are called {one} (upper and lower case count as equal); give "
                     "every arm a name of its own.")
        self._check_named("baseline", self.baseline)
        for arm in self.arms:
            self._check_start(arm)
            self._check_stream(arm)
        _require(all(length > 1 for length in self.lengths) and len({*self.lengths}) == len(self.lengths),
                 f"lengths must be different and at least 2, got {self.lengths}.")

    def arm(self, name: str) -> Arm:
        """The arm of that name."""
        return next(arm for arm in self.arms if arm.name == name)

    def starts(self, arm: Arm) -> Iterator[Arm]:
        """The arms that `arm` starts from, the nearest first."""
        while arm.starts_from:
            arm = self.arm(arm.starts_from)
            yield arm

    def _check_named(self, what: str, name: str) -> None:
        names = [arm.name for arm in self.arms]
        if name not in names:
            raise ConfigError(f"{what} {name!r} is no arm of the study{nearest(name, names)}")

    def _check_start(self, arm: Arm) -> None:
        """Raise ConfigError where the arm that this one starts from is missing, leads back to it, or has another model."""
        if not arm.starts_from:
            return
        self._check_named(f"arm {arm.name}: starts_from", arm.starts_from)
        _require(not arm.config.init_from, f"arm {arm.name} has starts_from and init_from; it can start with one of them.")
        seen = [arm.name]
        for start in self.starts(arm):
            _require(start.name not in seen, f"starts_from leads in a circle: {' -> '.join([*seen, start.name])}.")
            seen.append(start.name)
        start = self.arm(arm.starts_from)
        ours, theirs = to_dict(arm.config.model), to_dict(start.config.model)
        changed = [key for key in ours if ours[key] != theirs[key] and key not in ("max_length", "num_kv_heads")]
        _require(not changed, f"arm {arm.name} starts from {start.name}, which has another model "
                 f"({', '.join(f'model.{key} {theirs[key]}, not {ours[key]}' for key in changed)}); only kv heads may differ.")
        fewer, heads = arm.config.model.num_kv_heads, start.config.model.num_kv_heads
        _require(heads % fewer == 0, f"arm {arm.name} has {fewer} kv heads, which do not divide the {heads} of {start.name}, "
                 "from which it starts.")

    def _check_stream(self, arm: Arm) -> None:
        """Raise ConfigError unless the arm reads the tokens that the baseline reads, and can be compared on held-out text."""
        base, config = self.arm(self.baseline).config, arm.config
        for name, ours, theirs in (("data", config.data, base.data),
                                   ("model.vocab_size", config.model.vocab_size, base.model.vocab_size),
                                   ("training.seed", config.training.seed, base.training.seed)):
            _require(ours == theirs, f"arm {arm.name} differs from the baseline {self.baseline} in {name}; all arms of a study "
                     "read the same tokens.")
        limited = any(limit.epochs for limit in config.data.epoch_limits())
        _require(not limited or config.data.on_max_epochs == "warn", "the arms of a study read equally many "
                 "tokens; set data.max_epochs 0, or data.on_max_epochs warn.")
        _require(bool(config.data.heldout) or config.data.heldout_fraction > 0, "arms are compared by their held-out loss, and "
                 "nothing is held out; set data.heldout or data.heldout_fraction.")
