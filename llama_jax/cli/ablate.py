"""`llama_jax ablate` at work: run what is left of a study, and write its report."""

from pathlib import Path

from rich.console import Console

from llama_jax.ablation.run import Outcome, run_study
from llama_jax.ablation.study_dir import StudyFolder, open_study
from llama_jax.cli.find_config import find_study
from llama_jax.cli.options import AblateOptions
from llama_jax.cli.parsing import override_study
from llama_jax.config import load_study
from llama_jax.errors import ConfigError, LlamaError


def run_ablate(asked: AblateOptions) -> None:
    """Run the study, or with --report only report what is there; raises LlamaError where a run failed."""
    study = override_study(load_study(find_study(asked.config)), asked.overrides)
    path = Path(asked.workdir) if asked.workdir else Path("runs") / study.name
    if asked.report:
        _report(open_study(path, study, seeds=asked.seeds, vary_data=asked.vary_data))
        return
    outcome = run_study(study, path, seeds=asked.seeds, jobs=asked.jobs, vary_data=asked.vary_data)
    if outcome.stopped:
        print(f"{outcome.stopped}: the same command goes on from here")
        return
    if outcome.failed:
        raise LlamaError(_failures(outcome))
    _report(outcome.folder)


def _failures(outcome: Outcome) -> str:
    """A sentence on the runs that failed."""
    key, said = next(iter(outcome.failed.items()))
    rest = f" and {len(outcome.failed) - 1} more" if len(outcome.failed) > 1 else ""
    return (f"{key}{rest} failed ({said.rstrip('.')}; {outcome.folder.log(key).parent}); all other runs are finished, and the "
            "same command tries again.")


def _report(folder: StudyFolder) -> None:
    """Write the report of the runs that are finished, and say where it is."""
    from llama_jax.ablation.claims import hold_claim
    from llama_jax.ablation.report import write_study_report  # it imports matplotlib

    measurements = [measured for key in folder.runs() if (measured := folder.measurements_of(key))]
    if not measurements:
        raise ConfigError(f"{folder.path} has no finished run to report; leave --report out to run the study.")
    with hold_claim(folder.claims, "report"):
        write_study_report(folder.path, folder.study, measurements, seeds=range(folder.seeds))
    missing = len(folder.runs()) - len(measurements)
    note = f" ({missing} of {len(folder.runs())} runs are not finished)" if missing else ""
    Console(highlight=False, soft_wrap=True).print(f"report: {folder.path / 'report.html'}{note}", markup=False)
