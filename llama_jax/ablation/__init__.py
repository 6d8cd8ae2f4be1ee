"""Ablation studies: arms that differ in one choice are trained on the same tokens and compared (docs/ABLATIONS.md).

`analyse_study` turns the measurements of a study's runs into figures with confidence intervals, `write_study_report` into pages.
"""

from typing import TYPE_CHECKING

from llama_jax.lazy import lazy_getattr

if TYPE_CHECKING:
    from llama_jax.ablation.analysis import StudyAnalysis, analyse_study
    from llama_jax.ablation.report import write_study_report
    from llama_jax.ablation.statistics import critical_value, detectable_difference, mean_difference

_MODULES = {
    "StudyAnalysis": "analysis",
    "analyse_study": "analysis",
    "critical_value": "statistics",
    "detectable_difference": "statistics",
    "mean_difference": "statistics",
    "write_study_report": "report",
}

__all__ = [
    "StudyAnalysis", "analyse_study", "critical_value", "detectable_difference", "mean_difference", "write_study_report",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_getattr(__name__, _MODULES)
