"""Our graders beside those of lm-evaluation-harness on generated answers: every difference has a reason, which the docs name."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.peers
pytest.importorskip("lm_eval")
pytest.importorskip("yaml")

from tests.peers import graders  # noqa: E402

DOCS = (Path(__file__).parents[2] / "docs" / "EVALUATION.md").read_text()


def test_published_forms_are_the_harness_s_letter_for_letter():
    found = graders.compare_forms(6000, 1)
    assert found["texts"] == 6000
    assert found["Minerva's form differs"] == found["Hendrycks et al.'s form differs"] == 0


@pytest.mark.parametrize("compare", ["compare_math", "compare_numbers", "compare_short"])
def test_every_difference_is_listed(compare):
    found = getattr(graders, compare)(6000, 2)
    assert not [(key, items[0]) for key, items in found.items() if key[2] == graders.UNEXPLAINED]
    assert len(found) > 3 and all(f"**{reason}**" in DOCS for _, _, reason in found)


def test_a_wrong_grader_is_found(monkeypatch):
    """The comparison itself can fail: a grader that only compares texts, and one that says yes."""
    for wrong in (lambda a, b: a == b), (lambda a, b: True):
        monkeypatch.setattr(graders, "equivalent_answers", wrong)
        assert any(key[2] == graders.UNEXPLAINED for key in graders.compare_math(2000, 3))


def test_answers_of_real_references(shared_data):
    found = graders.compare_references(shared_data / "eval")
    assert found["MATH solutions"] == 28 and found["GSM8k answers"] == 220
    assert not any(count for name, count in found.items() if name not in ("MATH solutions", "GSM8k answers"))
