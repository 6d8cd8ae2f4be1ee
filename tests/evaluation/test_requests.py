"""Items of tasks: every sampled prompt draws its own random numbers, and what cannot be asked is refused."""

import pytest

from llama_jax.errors import DataError
from llama_jax.evaluation.requests import check_requests, with_prompt_indices
from llama_jax.evaluation.task import (
    GenerationRequest,
    Item,
    LikelihoodRequest,
    RollingRequest,
)
from llama_jax.evaluation.tasks.catalogue import all_tasks


def sampled(count: int, text: str = "First Citizen:") -> list[Item]:
    """Items with the same text, as of a data set that repeats a question: one greedy and one sampled prompt each."""
    return [Item(str(n), (GenerationRequest(text, max_tokens=8),
                          GenerationRequest(text, max_tokens=8, temperature=1.0, num_samples=3)))
            for n in range(count)]


def test_every_sampled_prompt_has_an_index_of_its_own():
    named = {name: with_prompt_indices(name, sampled(50)) for name in ("gsm8k_maj1", "minerva_math_maj1", "humaneval")}
    indices = [item.requests[1].prompt_index for items in named.values() for item in items]
    assert len(set(indices)) == 150 and max(indices) < 2**64
    assert all(item.requests[0].prompt_index == 0 for items in named.values() for item in items)
    assert with_prompt_indices("gsm8k_maj1", sampled(9)) == named["gsm8k_maj1"][:9]  # whatever the limit
    assert [item.sha256 for item in named["gsm8k_maj1"]] == [item.sha256 for item in sampled(50)]  # asked alike


def piqa_task():
    return all_tasks()["piqa"]


@pytest.mark.parametrize("request_, sentence", [
    (LikelihoodRequest("Is it?", ""), "piqa, item 7: a continuation to score is empty"),
    (RollingRequest(""), "piqa, item 7: a continuation to score is empty"),
    (LikelihoodRequest("a\ud800", " b"), "piqa, item 7: not valid Unicode text"),
])
def test_requests_that_cannot_be_answered_are_named(request_, sentence):
    with pytest.raises(DataError, match=sentence):
        check_requests(piqa_task(), Item("7", (request_,)))
