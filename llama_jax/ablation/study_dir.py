"""The folder of a study: what it holds, that a changed study is refused, and the config of each of its runs."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from llama_jax.config import Arm, Config, DataConfig, Study, from_dict, to_dict
from llama_jax.config.mixture import rename_stages
from llama_jax.data.corpus import open_corpus
from llama_jax.data.manifest import MANIFEST_FILE
from llama_jax.errors import ConfigError, DataError
from llama_jax.files.atomic import write_atomic

STUDY_FILE = "study.json"
"""File of a study folder that holds the study, its number of seeds, and whether seeds change the data too."""
_DATA_FILE = "data.json"
"""File of a study folder that names the prepared folders which all runs read; written when they are complete."""
_MEASUREMENTS_FILE = "measurements.json"
"""File of a run directory that holds what was measured of the run; it is written last, so a run that has it is finished."""
_FOUND_IN_NEW_FOLDERS = {"claims", f"{STUDY_FILE}.tmp"}
"""What another process that begins the same study may have made before it writes STUDY_FILE."""
_DESCRIPTIVE = ("name", "paper", "question", "expected", "hours", "arms", "path")
"""Fields of a Study that may change while its folder stays valid: no run depends on them. Arms are compared one by one."""


class RunKey(NamedTuple):
    """Which run of a study: an arm and a seed."""

    arm: str
    seed: int

    def __str__(self) -> str:
        return f"{self.arm} seed {self.seed}"

    @property
    def claim(self) -> str:
        """Name under which the run is claimed."""
        return f"{self.arm}.{self.seed}"


@dataclass(frozen=True)
class StudyFolder:
    """An opened study folder."""

    path: Path
    study: Study
    seeds: int
    """Runs per arm: seeds 0 .. seeds - 1 are added to the seed of the arm's config."""
    vary_data: bool
    """Whether a seed changes the order of the data too, and not only the initial parameters."""

    @property
    def claims(self) -> Path:
        """Folder of the claims."""
        return self.path / "claims"

    def runs(self) -> list[RunKey]:
        """All runs, those of the first seed first."""
        return [RunKey(arm.name, seed) for seed in range(self.seeds) for arm in self.study.arms]

    def run_dir(self, key: RunKey) -> Path:
        """The run directory of a run."""
        return self.path / "runs" / key.arm / str(key.seed)

    def log(self, key: RunKey) -> Path:
        """File with what the processes of a run have printed."""
        return self.path / "logs" / f"{key.arm}.{key.seed}.txt"

    def measurements_of(self, key: RunKey) -> dict[str, Any] | None:
        """What was measured of a run; None while it is not finished. Raises DataError where the file is damaged."""
        file = self.run_dir(key) / _MEASUREMENTS_FILE
        try:
            return json.loads(file.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise DataError(f"{file} is damaged ({error}); remove it, and the run is measured again.") from None

    def write_measurements(self, key: RunKey, values: dict[str, Any]) -> None:
        """Write what was measured of a run, which is finished by this."""
        lines = (f" {json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in values.items())
        write_atomic(self.run_dir(key) / _MEASUREMENTS_FILE, ("{\n" + ",\n".join(lines) + "\n}\n").encode())

    def is_finished(self, key: RunKey) -> bool:
        """Whether a run has been measured."""
        return (self.run_dir(key) / _MEASUREMENTS_FILE).is_file()

    def config(self, key: RunKey) -> Config:
        """The config of a run: its arm's, with the study's prepared data and the seed. Without `init_from` of `starts_from`."""
        config = self.study.arm(key.arm).config
        training = replace(config.training, init_seed=config.training.parameter_seed + key.seed)
        if self.vary_data:
            training = replace(training, seed=training.seed + key.seed)
        return replace(config, name=f"{self.study.name}/{key.arm}/{key.seed}", training=training, data=self.prepared_data())

    def prepare(self) -> None:
        """Prepare raw sources and the tokenizer into the folder, unless that is done; the caller holds the claim "study".

        Raises:
            DataError: data is missing, damaged or does not fit.
            ConfigError: the vocabulary has another size than the tokenizer.
        """
        if (self.path / _DATA_FILE).is_file():
            data = self.prepared_data()
            if all((Path(path) / MANIFEST_FILE).is_file() for path in (*dict(data.shares()), *data.heldout)):
                return
        config = self.study.arm(self.study.baseline).config
        corpus = open_corpus(config.data, config.model.vocab_size, workdir=self.path, padded=bool(config.init_from))
        total = sum(corpus.shares)
        values = {"sources": [[self._relative(source.folder), share / total]
                              for source, share in zip(corpus.sources, corpus.shares, strict=True)],
                  "heldout": [self._relative(source.folder) for source in corpus.heldout]}
        write_atomic(self.path / _DATA_FILE, (json.dumps(values, indent=1) + "\n").encode())

    def prepared_data(self) -> DataConfig:
        """The data of all runs: prepared folders, wherever the study folder lies now."""
        values = json.loads((self.path / _DATA_FILE).read_text())
        paths = [str(self.path / source) for source, _ in values["sources"]]
        sources = tuple(f"{path}={share!r}" for path, (_, share) in zip(paths, values["sources"], strict=True))
        heldout = tuple(str(self.path / source) for source in values["heldout"])
        data = self.study.arm(self.study.baseline).config.data
        stages = rename_stages(data.stages, [path for path, _ in data.shares()], renamed=paths)
        limits = tuple(f"{path}={limit.epochs!r}" for path, limit in zip(paths, data.epoch_limits(), strict=True))
        return replace(data, sources=sources, stages=stages, source_max_epochs=limits if data.source_max_epochs else (),
                       heldout=heldout, heldout_fraction=0.0, document_separator="", tokenizer=str(self.path))

    def _relative(self, source: Path) -> str:
        """A source's path relative to the study folder, where it lies in it, so that hosts may see the folder at other paths."""
        return str(source.relative_to(self.path) if source.is_relative_to(self.path) else source.resolve())


def read_study(path: Path) -> StudyFolder:
    """Open the study of a folder as its study.json says; raises DataError where there is none."""
    try:
        values = json.loads((path / STUDY_FILE).read_text())
        return StudyFolder(path, from_dict(Study, values["study"]), values["seeds"], values["vary_data"])
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path / STUDY_FILE} is no study of this version ({reason}).") from None


def open_study(path: Path, study: Study, *, seeds: int | None, vary_data: bool) -> StudyFolder:
    """What the folder of a study is after this call: the study in it, with new arms and seeds added. Nothing is written.

    Args:
        path: the folder; it need not exist.
        study: what was asked for.
        seeds: runs per arm; None: 3, or as many as the study in the folder has.
        vary_data: whether seeds change the order of the data too.

    Raises:
        ConfigError: the folder holds something else, or another study: an arm is missing or changed, or seeds are.
    """
    if seeds is not None and seeds < 1:
        raise ConfigError(f"--seeds must be at least 1, got {seeds}.")
    if not (path / STUDY_FILE).is_file():
        held = {file.name for file in path.iterdir()} if path.is_dir() else set()
        if path.exists() and (not path.is_dir() or held - _FOUND_IN_NEW_FOLDERS):
            raise ConfigError(f"{path} is not empty and no study ({STUDY_FILE} is missing); name another --workdir.")
        return StudyFolder(path, study, seeds or 3, vary_data)
    before = read_study(path)
    now = StudyFolder(path, study, seeds or before.seeds, vary_data)
    if changed := [*_changes(before, now)]:
        raise ConfigError(f"{path} holds another study ({'; '.join(changed[:5])}{' ...' if changed[5:] else ''}); name another "
                          "--workdir, or go back to the old values.")
    return now


def write_study(folder: StudyFolder) -> None:
    """Write study.json; the caller holds the claim "study"."""
    values = {"seeds": folder.seeds, "vary_data": folder.vary_data, "study": to_dict(folder.study)}
    write_atomic(folder.path / STUDY_FILE, (json.dumps(values, indent=1) + "\n").encode())


def _changes(before: StudyFolder, now: StudyFolder) -> Iterator[str]:
    """What of a study that is in a folder is not as it was, each as `name: before -> now`; more arms and seeds are no change."""
    if now.seeds < before.seeds:
        yield f"seeds: {before.seeds} -> {now.seeds}"
    if now.vary_data != before.vary_data:
        yield f"vary_data: {before.vary_data} -> {now.vary_data}"
    arms = {arm.name: arm for arm in now.study.arms}
    for arm in before.study.arms:
        if arm.name not in arms:
            yield f"arm {arm.name}: is missing"
        else:
            yield from _changes_of_arm(arm, arms[arm.name])
    old, new = to_dict(before.study), to_dict(now.study)
    for name in old:
        if name not in _DESCRIPTIVE and old[name] != new[name]:
            yield f"{name}: {old[name]} -> {new[name]}"


def _changes_of_arm(before: Arm, now: Arm) -> Iterator[str]:
    from llama_jax.config.compare import changes  # it imports jax

    yield from (f"arm {now.name}, {line}" for line in changes(before.config, now.config))
    if before.starts_from != now.starts_from:
        yield f"arm {now.name}, starts_from: {before.starts_from!r} -> {now.starts_from!r}"
