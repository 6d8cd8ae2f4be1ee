"""Graders of generated answers: short answers, numbers, LaTeX, and the toxicity of text. They are pure and import no jax."""

from llama_jax.evaluation.grading.expression import same_value
from llama_jax.evaluation.grading.latex import boxed_answer, equivalent_answers, normal_form
from llama_jax.evaluation.grading.matching import exact_match, majority_vote, parse_number, short_answer, squad_form
from llama_jax.evaluation.grading.published_forms import hendrycks_form, minerva_form
from llama_jax.evaluation.grading.toxicity import ToxicityScorer, toxicity_scorer

__all__ = [
    "ToxicityScorer", "boxed_answer", "equivalent_answers", "exact_match", "hendrycks_form", "majority_vote", "minerva_form",
    "normal_form", "parse_number", "same_value", "short_answer", "squad_form", "toxicity_scorer",
]
