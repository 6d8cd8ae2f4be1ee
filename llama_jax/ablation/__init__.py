"""Ablation studies: arms that differ in one choice are trained on the same tokens and compared (docs/ABLATIONS.md).

`run_study` trains arms x seeds in processes that may be on several hosts, `analyse_study` turns their measurements into figures
with confidence intervals, `write_study_report` into pages. Names are imported from their modules when they are first used: the
process that starts the runs needs no jax.
"""

from typing import TYPE_CHECKING

from llama_jax.lazy import lazy_getattr

if TYPE_CHECKING:
    from llama_jax.ablation.analysis import StudyAnalysis, analyse_study
    from llama_jax.ablation.claims import Claim, ClaimWatch, hold_claim, take_claim
    from llama_jax.ablation.measure import measure_run
    from llama_jax.ablation.report import write_study_report
    from llama_jax.ablation.run import run_study
    from llama_jax.ablation.statistics import critical_value, detectable_difference, mean_difference
    from llama_jax.ablation.study_dir import RunKey, StudyFolder, open_study, read_study

_MODULES = {
    "Claim": "claims",
    "ClaimWatch": "claims",
    "RunKey": "study_dir",
    "StudyAnalysis": "analysis",
    "StudyFolder": "study_dir",
    "analyse_study": "analysis",
    "critical_value": "statistics",
    "detectable_difference": "statistics",
    "hold_claim": "claims",
    "mean_difference": "statistics",
    "measure_run": "measure",
    "open_study": "study_dir",
    "read_study": "study_dir",
    "run_study": "run",
    "take_claim": "claims",
    "write_study_report": "report",
}
"""The module of each name, which is imported when the name is first asked for."""

__all__ = [
    "Claim", "ClaimWatch", "RunKey", "StudyAnalysis", "StudyFolder", "analyse_study", "critical_value", "detectable_difference",
    "hold_claim", "mean_difference", "measure_run", "open_study", "read_study", "run_study", "take_claim", "write_study_report",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_getattr(__name__, _MODULES)
