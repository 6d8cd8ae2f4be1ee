"""Reports of simulated studies: what the sentences claim, what files hold, and that equal measurements give equal bytes."""

import json
import math
import re
from dataclasses import replace

import pytest

from llama_jax.ablation.analysis import analyse_study
from llama_jax.ablation.findings import arm_finding, extrapolation_finding, stability_finding, study_findings
from llama_jax.ablation.plots import study_plots
from llama_jax.ablation.report import write_study_report
from llama_jax.errors import DataError
from tests.ablation.simulated import TRAINED, simulated_runs, simulated_study

STUDY = simulated_study(["relu", "same", "better", "worse"])
EFFECTS = {"relu": 0.0, "same": 0.0, "better": -0.05, "worse": 0.05}
RUNS = simulated_runs(STUDY, EFFECTS)


def sentences(analysis):
    return {arm.name: arm_finding(arm, baseline=analysis.study.baseline) for arm in analysis.arms.values()}


def without_timing(page: str) -> str:
    return page.partition(">Timing<")[0].partition("## Timing")[0]


def test_sentences_say_direction_size_and_what_stays_open():
    found = sentences(analyse_study(STUDY, RUNS))
    assert re.match(r"better: held-out loss lower than relu's by 0\.0\d+ nats per token \(95% interval 0\.0\d+ to 0\.0\d+; "
                    r"3 seeds, 20 held-out batches\)\.$", found["better"])
    assert found["worse"].startswith("worse: held-out loss higher than relu's by 0.0")
    assert "no difference from relu is shown" in found["same"] and "four of five such studies" in found["same"]
    assert "the baseline" in found["relu"] and "3 seeds" in found["relu"]
    about = " ".join(study_findings(analyse_study(STUDY, RUNS)))
    assert "Expected (Shazeer 2020, arXiv 2002.05202): Gated units" in about
    assert "Not told apart from relu at this scale: same." in about
    assert "lower held-out loss than relu: better (-0.0" in about and "higher held-out loss than relu: worse (+0.0" in about
    assert "12 finished runs read identical training batches" in about and "unfinished" not in about


def test_the_ranking_begins_with_the_lowest_loss():
    losses = [arm.loss for arm in analyse_study(STUDY, RUNS).ranked]
    assert losses == sorted(losses) and not any(map(math.isnan, losses))


def test_runs_that_are_missing_or_diverged_are_named():
    runs = [run for run in simulated_runs(STUDY, EFFECTS, diverged=[("worse", seed) for seed in range(3)] + [("better", 2)])
            if run["arm"] != "same"]
    analysis = analyse_study(STUDY, runs, seeds=range(4))
    found, about = sentences(analysis), " ".join(study_findings(analysis))
    assert found["same"] == "same: not run yet."
    assert found["worse"].startswith("worse: diverged in 3 of 3 runs (seeds 0, 1, 2: the loss is not finite at step 130)")
    assert all(part in found["better"] for part in ("1 of 3 runs diverged (seed 2:", "2 seeds", "Missing: seed 3."))
    assert "Diverged: better (1 of 3 runs), worse (3 of 3 runs)." in about and "same (seeds 0, 1, 2, 3)" in about
    assert analysis.ranked[-1].name == "worse" and "inf" in stability_finding(analysis)


def test_one_seed_shows_nothing_of_other_seeds():
    analysis = analyse_study(STUDY, [run for run in RUNS if run["seed"] == 1])
    assert "over held-out batches only" in sentences(analysis)["better"]
    about = " ".join(study_findings(analysis))
    assert "Compared with one seed alone" in about and "Holm" not in about and "Shown here" not in about


def test_arms_are_compared_on_the_same_batches_alone():
    runs = [run | {"heldout_sha256": "other", "stream_sha256": "else"} if run["arm"] == "better" else run for run in RUNS]
    analysis = analyse_study(STUDY, runs)
    assert analysis.arms["better"].comparison is None and "not the baseline's" in sentences(analysis)["better"]
    assert "training batches are not the same in every run" in " ".join(study_findings(analysis))
    only = [run for run in RUNS if (run["arm"] == "relu") != (run["seed"] == 1)]
    assert "no seed has a finished run of both" in sentences(analyse_study(STUDY, only))["better"]


def test_runs_that_are_not_of_the_study_are_refused():
    with pytest.raises(DataError, match="arm relu of study simulated has two measurements with seed 0; remove one"):
        analyse_study(STUDY, [*RUNS, RUNS[0]])
    with pytest.raises(DataError, match="arm elu is not of study simulated"):
        analyse_study(STUDY, [RUNS[0] | {"arm": "elu"}])


def test_loss_beyond_the_trained_length():
    study = simulated_study(["rope", "learned", "alibi"], lengths=(256, 512))
    runs = simulated_runs(study, {"rope": 0.0, "learned": 0.02, "alibi": 0.01}, rises={"rope": 0.6, "alibi": -0.05})
    runs = [run | {"by_position": {"256": None, "512": None}, "by_position_missing": {"256": "no parameters there"}}
            if run["arm"] == "learned" else run for run in runs]
    analysis = analyse_study(study, runs)
    rope, alibi = analysis.arms["rope"].extrapolations, analysis.arms["alibi"].extrapolations
    assert [one.length for one in rope] == [256, 512] and rope[0].trained_length == TRAINED
    assert rope[1].change.sign == 1 and alibi[1].change.sign == -1 and not analysis.arms["learned"].extrapolations
    assert "the loss rises beyond the trained length, +0.6" in extrapolation_finding(analysis.arms["rope"], rope[1])
    assert "the loss falls further" in extrapolation_finding(analysis.arms["alibi"], alibi[1])
    assert [plot.name for plot in study_plots(analysis)] == ["report-differences", "report-curves", "report-positions"]


def test_arms_with_caches_of_their_own_are_drawn_over_their_size():
    names = [plot.name for plot in study_plots(analyse_study(STUDY, simulated_runs(STUDY, EFFECTS, caches=True)))]
    assert names == ["report-differences", "report-curves", "report-cache"]


def test_the_same_measurements_give_the_same_files(tmp_path):
    retimed = [run | {"timing": {name: 2 * value for name, value in run["timing"].items()}} for run in reversed(RUNS)]
    write_study_report(tmp_path / "first", STUDY, RUNS)
    write_study_report(tmp_path / "second", STUDY, retimed)
    names = {file.name for file in (tmp_path / "first").iterdir()}
    assert names == {"report.html", "report.md", "report.json", "report-curves.png", "report-differences.png"}
    for name in names:
        first, second = ((tmp_path / folder / name).read_bytes() for folder in ("first", "second"))
        if name == "report.json":
            first, second = (json.loads(text) for text in (first, second))
            assert first.pop("timing") != second.pop("timing")
        elif not name.endswith(".png"):
            first, second = (without_timing(text.decode()) for text in (first, second))
            assert len(first) > 3000
        assert first == second, name


def test_the_page_is_whole_and_the_json_has_numbers_or_null(tmp_path):
    runs = simulated_runs(STUDY, EFFECTS, diverged=[("worse", 0), ("worse", 1)])
    write_study_report(tmp_path, replace(STUDY, name="a<b $x$"), runs)
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2 and "a&lt;b $x$" in page and "a<b" not in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    data = json.loads((tmp_path / "report.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert data["arms"]["worse"]["largest_grad_norm"] is None and data["ranking"][0] == "better"
    assert data["arms"]["better"]["difference"]["high"] < 0 < data["arms"]["better"]["difference"]["detectable"]
    assert set(data["arms"]["worse"]["diverged"]) == {"0", "1"}


def test_a_study_without_a_finished_run_has_a_report(tmp_path):
    write_study_report(tmp_path, STUDY, [], seeds=range(2))
    assert "relu (seeds 0, 1), same (seeds 0, 1)" in (tmp_path / "report.md").read_text()
    write_study_report(tmp_path, STUDY, simulated_runs(STUDY, EFFECTS, seeds=(0,), diverged=[(name, 0) for name in EFFECTS]))
    assert "diverged in 1 of 1 runs" in (tmp_path / "report.md").read_text()


def test_a_path_compares_each_arm_with_the_one_before_it(tmp_path):
    analysis = analyse_study(replace(STUDY, path=True), RUNS)
    assert list(analysis.steps) == ["same", "better", "worse"] and not analyse_study(STUDY, RUNS).steps
    for before, name in (("relu", "same"), ("same", "better"), ("better", "worse")):
        direct = analyse_study(replace(STUDY, baseline=before), RUNS).arms[name].comparison
        assert analysis.steps[name].difference == direct.difference and analysis.steps[name].p_value == direct.p_value
    write_study_report(tmp_path, replace(STUDY, path=True), RUNS)
    assert "| worse | +0.1" in (tmp_path / "report.md").read_text().partition("## One change after another")[2][:400]
    assert json.loads((tmp_path / "report.json").read_text())["steps"]["worse"]["value"] == pytest.approx(0.1, abs=0.03)
