"""What a study shows and does not show, one plain sentence or two per arm and per study.

A difference counts as shown where its 95% confidence interval excludes 0. Otherwise the sentence says which difference the study
would have found, because no difference shown is not the same as no difference.
"""

import math
from collections.abc import Sequence
from itertools import groupby

from llama_jax.ablation.analysis import ArmAnalysis, Comparison, Extrapolation, Measurement, StudyAnalysis
from llama_jax.terminal import compact

DECIMALS = 4
"""Decimals of losses and their differences in nats per token."""


def study_findings(analysis: StudyAnalysis) -> list[str]:
    """Sentences about the study as a whole: the paper's expectation, what is shown, the common token stream, what is missing."""
    study = analysis.study
    found = [f"Expected ({study.paper}): {_sentence(study.expected)}"]
    found += _shown_findings(analysis)
    found += _holm_finding(analysis)
    if diverged := [arm for arm in analysis.arms.values() if arm.diverged]:
        found.append("Diverged: " + ", ".join(f"{arm.name} ({_share_diverged(arm)} runs)" for arm in diverged) + ".")
    found += _stream_finding(analysis)
    if missing := [arm for arm in analysis.arms.values() if arm.missing or not (arm.done or arm.diverged)]:
        found.append("This report is of an unfinished study. Missing: "
                     + ", ".join(f"{arm.name} ({_seeds(arm.missing)})" if arm.missing else arm.name for arm in missing) + ".")
    return found


def arm_finding(arm: ArmAnalysis, *, baseline: str) -> str:
    """One arm against the baseline: direction, size and interval, or what remains open; runs that diverged or are missing."""
    if not arm.done:
        if not arm.diverged:
            return f"{arm.name}: not run yet."
        return f"{arm.name}: diverged in {_share_diverged(arm)} runs ({_how_diverged(arm.diverged)}); it has no held-out loss."
    parts = [_loss_sentence(arm) if arm.name == baseline else _difference_sentence(arm, baseline)]
    if arm.diverged:
        parts.append(f"{_share_diverged(arm)} runs diverged ({_how_diverged(arm.diverged)}) and are not in these figures.")
    if arm.missing:
        parts.append(f"Missing: {_seeds(arm.missing)}.")
    return f"{arm.name}: " + " ".join(parts)


def extrapolation_finding(arm: ArmAnalysis, found: Extrapolation) -> str:
    """Whether an arm's loss beyond the trained length stays what it was within."""
    change = found.change
    start = (f"{arm.name}, rows of {found.length:,} tokens after training on {found.trained_length:,}: ")
    figures = f"{found.beyond:.{DECIMALS}f} nats per token beyond against {found.within:.{DECIMALS}f} within"
    if not change.bounded:
        return f"{start}{figures}, {change.value:+.{DECIMALS}f} with one seed, whose noise is not known."
    span = f"95% interval over seeds {change.low:+.{DECIMALS}f} to {change.high:+.{DECIMALS}f}"
    verdict = {-1: "the loss falls further beyond the trained length", 0: "no change beyond the trained length is shown",
               1: "the loss rises beyond the trained length"}[change.sign]
    return f"{start}{verdict}, {change.value:+.{DECIMALS}f} ({span}); {figures}."


def stability_finding(analysis: StudyAnalysis) -> str:
    """The arms with the largest gradient norm and with the most spikes of the loss."""
    norms = {arm.name: largest_grad_norm(arm) for arm in analysis.arms.values() if arm.done or arm.diverged}
    if not norms:
        return "No run was measured yet."
    largest = max(norms, key=lambda name: math.inf if math.isnan(norms[name]) else norms[name])
    spikes = {arm.name: count_spikes(arm) for arm in analysis.arms.values() if count_spikes(arm)}
    listed = ", ".join(f"{name} ({count})" for name, count in sorted(spikes.items(), key=lambda item: -item[1]))
    return (f"Largest gradient norm: {compact(norms[largest], '.3g')}, of {largest}. "
            + (f"Spikes of the training loss: {listed}." if spikes else "No run had a spike of the training loss."))


def timing_findings(analysis: StudyAnalysis) -> list[str]:
    """Decoding speed of each arm relative to the baseline; empty where it was not measured."""
    base = mean_timing(analysis.baseline, "decode_tokens_per_second")
    speeds = {arm.name: mean_timing(arm, "decode_tokens_per_second") for arm in analysis.arms.values()}
    listed = [f"{name} {speed / base:.2f} times" for name, speed in speeds.items()
              if name != analysis.study.baseline and speed and base]
    return [f"Decoding speed relative to {analysis.study.baseline}: {', '.join(listed)}."] if listed else []


def largest_grad_norm(arm: ArmAnalysis) -> float:
    """The largest gradient norm of any of an arm's runs, not finite where one of them was not."""
    norms = [float("nan" if run["largest_grad_norm"] is None else run["largest_grad_norm"]) for run in every_run(arm)]
    return math.nan if any(map(math.isnan, norms)) else max(norms)


def count_spikes(arm: ArmAnalysis) -> int:
    """Spikes of the training loss in all of an arm's runs."""
    return sum(run["spikes"] for run in every_run(arm))


def every_run(arm: ArmAnalysis) -> list[Measurement]:
    """Measurements of an arm's runs, those that diverged last."""
    return [*arm.done.values(), *arm.diverged.values()]


def mean_timing(arm: ArmAnalysis, name: str) -> float | None:
    """Mean over an arm's finished runs of a figure of timing; None where none of them has it."""
    values = [run["timing"][name] for run in arm.done.values() if run["timing"].get(name)]
    return math.fsum(values) / len(values) if values else None


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s" if noun[-2:] != "ch" else "es")


def _seeds(seeds: Sequence[int]) -> str:
    return ("seed " if len(seeds) == 1 else "seeds ") + ", ".join(map(str, seeds))


def _share_diverged(arm: ArmAnalysis) -> str:
    return f"{len(arm.diverged)} of {len(arm.diverged) + len(arm.done)}"


def _how_diverged(runs: dict[int, Measurement]) -> str:
    """Seeds and reasons: "seeds 0, 2: the loss is not finite at step 40"."""
    by_reason = sorted(runs, key=lambda seed: (runs[seed]["reason"], seed))
    return "; ".join(f"{_seeds(list(seeds))}: {reason.rstrip('.') or 'loss not finite'}"
                     for reason, seeds in groupby(by_reason, key=lambda seed: runs[seed]["reason"]))


def _loss_sentence(arm: ArmAnalysis) -> str:
    several = len(arm.losses) > 1
    noise = f"standard deviation {arm.deviation:.{DECIMALS}f} over {len(arm.losses)} seeds" if several else "one seed"
    return f"the baseline, {arm.loss:.{DECIMALS}f} nats per token ({arm.bits_per_byte:.{DECIMALS}f} bits per byte), {noise}."


def _difference_sentence(arm: ArmAnalysis, baseline: str) -> str:
    one = arm.comparison
    if one is None:
        return f"{arm.loss:.{DECIMALS}f} nats per token, not compared with {baseline}: {arm.incomparable}."
    value, low, high = one.difference
    basis = f"{_count(len(one.seeds), 'seed')}, {_count(one.batches, 'held-out batch')}"
    if not one.difference.bounded:
        return (f"{value:+.{DECIMALS}f} nats per token against {baseline}, with one seed and one held-out batch: "
                f"nothing is known of the noise.")
    if sign := one.difference.sign:
        low, high = sorted((abs(low), abs(high)))
        word = "lower" if sign < 0 else "higher"
        return (f"held-out loss {word} than {baseline}'s by {abs(value):.{DECIMALS}f} nats per token (95% interval "
                f"{low:.{DECIMALS}f} to {high:.{DECIMALS}f}; {basis}).{_caveat(one)}")
    return (f"no difference from {baseline} is shown: {value:+.{DECIMALS}f} nats per token (95% interval {low:+.{DECIMALS}f} to "
            f"{high:+.{DECIMALS}f}; {basis}). A difference of {one.detectable:.{DECIMALS}f} would be found by four of five such "
            f"studies; smaller ones stay open.{_caveat(one)}")


def _caveat(one: Comparison) -> str:
    return "" if len(one.seeds) > 1 else (" With one seed the interval is over held-out batches only: another initialisation "
                                          "could change the result.")


def _shown_findings(analysis: StudyAnalysis) -> list[str]:
    """Which arms differ from the baseline, which are not told apart from it, and which were compared with one seed alone."""
    baseline = analysis.study.baseline
    compared = [(arm.name, arm.comparison) for arm in analysis.ranked if arm.comparison]
    several = [(name, one) for name, one in compared if len(one.seeds) > 1]
    shown = []
    for sign, word in ((-1, "lower"), (1, "higher")):
        if listed := [f"{name} ({one.difference.value:+.{DECIMALS}f})" for name, one in several if one.difference.sign == sign]:
            shown.append(f"{word} held-out loss than {baseline}: {', '.join(listed)}")
    found = []
    if several:
        found.append(f"Shown here, in nats per token: {'; '.join(shown)}." if shown else
                     f"No arm is shown to differ from {baseline} in held-out loss.")
    if undecided := [name for name, one in several if not one.difference.sign]:
        found.append(f"Not told apart from {baseline} at this scale: {', '.join(undecided)}.")
    if single := [f"{name} ({one.difference.value:+.{DECIMALS}f})" for name, one in compared if len(one.seeds) == 1]:
        found.append(f"Compared with one seed alone, so that nothing is shown of other initialisations: {', '.join(single)}.")
    return found


def _holm_finding(analysis: StudyAnalysis) -> list[str]:
    compared = [(arm, arm.comparison) for arm in analysis.arms.values() if arm.comparison and arm.comparison.holm_p_value >= 0]
    if len(compared) < 2:
        return []
    kept = [arm.name for arm, one in compared if one.holm_p_value < 0.05]
    lost = [arm.name for arm, one in compared if one.difference.sign and one.holm_p_value >= 0.05]
    return [f"With Holm's correction for {len(compared)} comparisons, "
            + (f"shown at the 5% level: {', '.join(kept)}" if kept else "nothing is shown at the 5% level")
            + (f"; no longer: {', '.join(lost)}." if lost else ".")]


def _stream_finding(analysis: StudyAnalysis) -> list[str]:
    """Whether all runs of as many rows read the same batches, by their hash."""
    runs = [run for arm in analysis.arms.values() for run in arm.done.values()]
    streams: dict[int, dict[str, list[str]]] = {}  # rows -> hash -> arms
    for run in runs:
        arms = streams.setdefault(run.get("stream_rows", 0), {}).setdefault(run["stream_sha256"], [])
        arms += [] if run["arm"] in arms else [run["arm"]]
    if not runs:
        return []
    listed = [f"{digest[:12]}{f' of {rows:,} rows' if rows else ''}" for rows, hashes in streams.items() for digest in hashes]
    if all(len(hashes) == 1 for hashes in streams.values()):
        some = "" if len(streams) == 1 else " where they read as many"
        return [f"{_count(len(runs), 'finished run')} read identical training batches{some} (SHA-256 {', '.join(listed)})."]
    different = [f"{digest[:12]}: {', '.join(arms)}" for hashes in streams.values() for digest, arms in hashes.items()]
    return [f"The training batches are not the same in every run (SHA-256 {'; '.join(different)}), so that differences are "
            f"those of the data, too."]
