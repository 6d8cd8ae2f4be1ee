"""A short part of the killed processes of `python -m tests.faults`: one trial of each command."""

import pytest

from tests.faults.inputs import FINE
from tests.faults.kills import Killed


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["train", "prepare"])
def test_what_was_killed_ends_as_undisturbed(tmp_path, kind):
    outcome = Killed(kind, tmp_path).trial(0, kills=2)
    assert outcome.ended in FINE, f"{outcome.ended}: {outcome.text} ({outcome.file})"
