"""lm-evaluation-harness asks our models, in process and without torch (extra `lm_eval`).

    python -m llama_jax.evaluation.lm_eval --model llama_jax --model_args checkpoint=DIR --tasks hellaswag,piqa

takes every argument of its `lm_eval` command. That command itself finds models in its own list only (0.4.13 looks for no
plugins), so this module adds ours to the list first; whoever calls `lm_eval.simple_evaluate` imports this module before.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any
from zlib import crc32

import jax

try:
    import lm_eval.models  # noqa: F401  fills its list of models
except ModuleNotFoundError as error:
    if __name__ != "__main__":
        raise
    print(f'error: {error.name} is missing; install it with pip install -e ".[lm-eval]".', file=sys.stderr)
    sys.exit(2)
from lm_eval.__main__ import cli_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM, CacheHook
from lm_eval.api.registry import register_model
from tqdm import tqdm

from llama_jax.config import MeshConfig
from llama_jax.errors import ConfigError, DataError, exit_code_of
from llama_jax.evaluation.answers import Answerer, run_and_step
from llama_jax.evaluation.harness import CHUNK_CHARACTERS, cut_into_chunks, request_characters
from llama_jax.evaluation.task import GenerationRequest, LikelihoodRequest, RollingRequest
from llama_jax.formats.loading import load

_DEFAULT_MAX_TOKENS = 256
"""Generated at most where a task does not say."""
_CACHE_OWNER = "llama_jax model"
"""Key in the harness's cache of answers under which ours notes whose they are."""
_GENERATION_ARGUMENTS = {"until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k"}


@register_model("llama_jax")
class LlamaJax(LM):
    """A checkpoint of ours as that harness's model."""

    def __init__(self, checkpoint: str, tensor: int = 1, batch_size: Any = None, max_batch_size: Any = None,
                 device: Any = None, seed: int = 0):
        """`checkpoint` and `tensor` as for eval.py; rows are packed, so that `batch_size` and `device` decide nothing."""
        super().__init__()
        run, step = run_and_step(str(checkpoint))
        path = run if step is None else run / "checkpoints" / str(step)
        model, params, tokenizer = load(path, MeshConfig(data=-1, tensor=int(tensor)))
        self._answerer = Answerer(model, params, tokenizer)
        self._mesh, self._seed = params["embedding"].sharding.mesh, int(seed)
        self._name = f"{run.resolve().name}-{step or 0}"

    @property
    def tokenizer_name(self) -> str:
        """What that harness files its cached requests under."""
        return f"{self._name}-{self._answerer.tokenizer.sha256[:12]}"

    def get_model_info(self) -> dict[str, Any]:
        """For that harness's results."""
        return {"model_sha": self._answerer.fingerprint, "model_dtype": self._answerer.model.compute.dtype}

    def set_cache_hook(self, cache_hook: CacheHook) -> None:
        """Take the harness's cache of answers (--use_cache). It files them by request alone: one that holds another
        model's answers, or another seed's, raises DataError.
        """
        if cache_hook.dbdict is not None:
            asked = f"{self._answerer.fingerprint} seed {self._seed}"
            answers = len(cache_hook.dbdict)
            if answers and cache_hook.dbdict.get(_CACHE_OWNER) != asked:
                raise DataError(f"{cache_hook.dbdict.filename} holds {answers:,} answers of another model, or of one that is not "
                                "named in it; name another --use_cache, or remove the file.")
            cache_hook.dbdict[_CACHE_OWNER] = asked
        super().set_cache_hook(cache_hook)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(log-probability, whether greedy decoding would write it) of each (context, continuation)."""
        asked = [LikelihoodRequest(*request.args) for request in requests]
        if any(not choice.continuation for choice in asked):
            raise DataError("a request has an empty continuation; there is nothing to score.")
        return self._scored("loglikelihood", requests, asked, lambda score: (score.logprob, score.is_greedy), disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of each whole text after BOS."""
        asked = [RollingRequest(request.args[0]) for request in requests]
        return self._scored("loglikelihood_rolling", requests, asked, lambda score: score.logprob, disable_tqdm)

    def _scored(self, kind: str, requests: Sequence[Instance], asked: Sequence[LikelihoodRequest | RollingRequest], part,
                quiet: bool) -> list[Any]:
        """Answers in order; each is told to the cache as it comes."""
        results: list[Any] = [None] * len(asked)
        with jax.set_mesh(self._mesh), tqdm(total=len(asked), desc=kind, disable=quiet) as bar:
            begin = 0
            for chunk in cut_into_chunks(asked, CHUNK_CHARACTERS, size=request_characters):
                for some in self._answerer.scores(chunk):
                    for number, (score, _) in some.items():
                        at = begin + number
                        results[at] = part(score)
                        self.cache_hook.add_partial(kind, requests[at].args, results[at])
                    bar.update(len(some))
                begin += len(chunk)
        return results

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """A continuation of each context, up to the first of its stop strings."""
        prompts = [replace(_generation_request(*request.args, seed=self._seed), place=place)
                   for request, place in zip(requests, _sampling_places(requests), strict=True)]
        order = sorted(range(len(prompts)), key=lambda n: str(_without_text(prompts[n])))
        results = [""] * len(prompts)
        with jax.set_mesh(self._mesh), tqdm(total=len(prompts), desc="generate_until", disable=disable_tqdm) as bar:
            for _, alike in groupby(order, key=lambda n: _without_text(prompts[n])):
                numbers = list(alike)
                answers, _ = self._answerer.texts([prompts[n] for n in numbers])
                for n, answer in zip(numbers, answers, strict=True):
                    results[n] = answer.texts[0]
                    self.cache_hook.add_partial("generate_until", requests[n].args, results[n])
                bar.update(len(numbers))
        return results


def _generation_request(text: str, wanted: dict[str, Any], seed: int) -> GenerationRequest:
    """That harness's way of asking in ours: without do_sample it is greedy, whatever the temperature."""
    if unknown := set(wanted) - _GENERATION_ARGUMENTS:
        raise ConfigError(f"generation arguments {', '.join(sorted(unknown))} are not known here; known: "
                          f"{', '.join(sorted(_GENERATION_ARGUMENTS))}.")
    until = wanted.get("until") or ()
    stop = tuple(part for part in ([until] if isinstance(until, str) else until) if part)
    temperature = float(wanted.get("temperature") or 0.0)
    samples = wanted.get("do_sample", temperature > 0)
    return GenerationRequest(
        text, stop, max_tokens=int(wanted.get("max_gen_toks", _DEFAULT_MAX_TOKENS)),
        temperature=(temperature or 1.0) if samples else 0.0, top_p=float(wanted.get("top_p", 1.0)),
        top_k=int(wanted.get("top_k", 0)), seed=seed)


def _without_text(prompt: GenerationRequest) -> GenerationRequest:
    """What prompts that are decoded together share."""
    return replace(prompt, text="", place=0)


def _sampling_places(requests: Sequence[Instance]) -> list[int]:
    """Which noise each request is drawn with: its task, document and number there decide, whatever else is asked.

    A request that comes several times, as that harness repeats those that it wants several samples of, has several.
    """
    seen, places = Counter[tuple](), []
    for request in requests:
        number = (request.task_name, request.doc_id, request.idx)
        places.append(crc32(f"{request.task_name} {request.idx} {seen[number]}".encode()) << 32 | (request.doc_id or 0))
        seen[number] += 1
    return places


def main() -> int:
    """That harness's command line, with our model in its list."""
    return exit_code_of(cli_evaluate)


if __name__ == "__main__":
    sys.exit(main())
