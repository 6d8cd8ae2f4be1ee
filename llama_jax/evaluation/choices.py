"""Multiple-choice questions: a request for every choice, and the preferred choice under every normalisation."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from llama_jax.evaluation.task import Item, LikelihoodAnswer, LikelihoodRequest, Verdict

NORMALISATIONS = ("raw", "char", "byte", "token", "answer")
"""Scores of a choice c: log P(c | context) as it is; divided by the characters, bytes or tokens of c, where a leading space
counts neither as a character nor as a byte; or less log P(c | "Answer:") (LLaMA paper, section 3, Common Sense Reasoning)."""


class ChoiceQuestion(NamedTuple):
    """A record as text: every choice is scored as a continuation of its context.

    The contexts are equal, except with partial scoring (WinoGrande), where the choices are in the contexts and the
    continuations are equal.
    """

    contexts: list[str]
    continuations: list[str]
    gold: int
    """Index of the right choice."""

    @property
    def solved(self) -> str:
        """The question with its right answer, as a worked example."""
        return self.contexts[self.gold] + self.continuations[self.gold]


def choice_question(context: str, choices: list[str], *, gold: int) -> ChoiceQuestion:
    """A question with one context, after which every choice stands behind a space."""
    return ChoiceQuestion([context] * len(choices), [" " + choice for choice in choices], gold)


def choice_item(key: str, asked: ChoiceQuestion, *, prefix: str = "", answer_context: str = "Answer:", **fields) -> Item:
    """An item whose requests are in the order that `judge_choices` expects.

    Args:
        prefix: Text before every context, such as worked examples.
        answer_context: The context of the answer-context normalisation.
        fields: Further fields of the Item.
    """
    choices = [LikelihoodRequest(prefix + context, text)
               for context, text in zip(asked.contexts, asked.continuations, strict=True)]
    bare = [LikelihoodRequest(answer_context, text) for text in asked.continuations]
    return Item(key, (*choices, *bare), asked.gold, **fields)


def normalised_logprobs(
    choices: Sequence[str], answers: Sequence[LikelihoodAnswer], *, bare: Sequence[LikelihoodAnswer]
) -> dict[str, list[float]]:
    """The score of every choice under each of NORMALISATIONS.

    Args:
        answers: Log-probabilities of every choice after its context.
        bare: Log-probabilities of every choice after the answer context alone, "Answer:".
    """
    texts = [choice.removeprefix(" ") for choice in choices]
    raw = [answer.logprob for answer in answers]
    sizes = {"char": [len(text) for text in texts], "byte": [len(text.encode()) for text in texts],
             "token": [answer.tokens for answer in answers]}
    scores = {"raw": raw}
    for name, column in sizes.items():
        scores[name] = [value / max(size, 1) for value, size in zip(raw, column, strict=True)]
    scores["answer"] = [value - answer.logprob for value, answer in zip(raw, bare, strict=True)]
    return scores


def judge_choices(item: Item, given: Sequence[LikelihoodAnswer]) -> Verdict:
    """The choice that each normalisation prefers, and whether it is the gold one.

    The first half of the item's requests are the choices after their contexts, the second half the choices after the answer
    context, as `choice_item` makes them.
    """
    count = len(item.requests) // 2
    choices = [request.continuation for request in item.requests[:count] if isinstance(request, LikelihoodRequest)]
    scores = normalised_logprobs(choices, given[:count], bare=given[count:])
    preferred = {name: int(np.argmax(column)) for name, column in scores.items()}
    return Verdict({f"acc_{name}": float(choice == item.gold) for name, choice in preferred.items()}, preferred)
