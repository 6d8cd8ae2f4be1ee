"""An adapter through which lm-evaluation-harness asks models of this package, in process and without torch.

    python -m llama_jax.evaluation.lm_eval --model llama_jax --model_args checkpoint=DIR --tasks hellaswag,piqa

takes every argument of the `lm_eval` command (extra `lm-eval`). The bare `lm_eval` command finds models in its own list only
(0.4.13 looks for no plugins), so this module adds `llama_jax` to that list and then runs the command. Code that calls
`lm_eval.simple_evaluate` imports this module first.
"""

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any
from zlib import crc32

import jax

try:
    import lm_eval.models  # noqa: F401  fills lm-evaluation-harness's list of models
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
from llama_jax.evaluation.fingerprint import FingerprintWhileReading
from llama_jax.evaluation.harness import CHUNK_CHARACTERS, cut_into_chunks, request_characters
from llama_jax.evaluation.task import GenerationRequest, LikelihoodAnswer, LikelihoodRequest, RollingRequest
from llama_jax.formats.open import open_source
from llama_jax.inference.reading import read_for_inference

_DEFAULT_MAX_TOKENS = 256
"""Most tokens of a generated answer where a task does not say."""
_CACHE_OWNER = "llama_jax model"
"""Key in lm-evaluation-harness's cache of answers under which the adapter notes the model that gave them."""
_GENERATION_ARGUMENTS = {"until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k"}
"""Generation arguments of lm-evaluation-harness that the adapter understands."""


@register_model("llama_jax")
class LlamaJax(LM):
    """A checkpoint of any format as a model of lm-evaluation-harness."""

    def __init__(self, checkpoint: str, tensor: int = 1, *, batch_size: Any = None, max_batch_size: Any = None,
                 device: Any = None, seed: int = 0):
        """`checkpoint` and `tensor` as for eval.py. `batch_size` and `device` are accepted and ignored: rows are packed."""
        super().__init__()
        run, step = run_and_step(str(checkpoint))
        path = run if step is None else run / "checkpoints" / str(step)
        weights, mesh = FingerprintWhileReading(), MeshConfig(data=-1, tensor=int(tensor))
        model, params, tokenizer = read_for_inference(open_source(path), mesh, observe=weights.add)
        self._answerer = Answerer(model, params, tokenizer, weights.fingerprint(model, tokenizer=tokenizer))
        self._mesh, self._seed = params.mesh, int(seed)
        self._name = f"{run.resolve().name}-{step or 0}"

    @property
    def tokenizer_name(self) -> str:
        """The name under which lm-evaluation-harness files its cached requests."""
        return f"{self._name}-{self._answerer.tokenizer.sha256[:12]}"

    def get_model_info(self) -> dict[str, Any]:
        """What lm-evaluation-harness writes about the model into its results."""
        return {"model_sha": self._answerer.fingerprint, "model_dtype": self._answerer.model.compute.dtype}

    def set_cache_hook(self, cache_hook: CacheHook) -> None:
        """Accept lm-evaluation-harness's cache of answers (--use_cache) if it is empty or holds this model's answers.

        That cache files answers by their request alone, whatever model gave them. Raises DataError for one that holds
        another model's answers, or another seed's.
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
        """(log-probability, whether greedy decoding would produce it) of each (context, continuation)."""
        asked = [LikelihoodRequest(*request.args) for request in requests]
        if any(not request.continuation for request in asked):
            raise DataError("a request has an empty continuation; there is nothing to score.")
        return self._scored(requests, asked, kind="loglikelihood", quiet=disable_tqdm,
                            result_of=lambda answer: (answer.logprob, answer.is_greedy))

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of each whole text after BOS."""
        asked = [RollingRequest(request.args[0]) for request in requests]
        return self._scored(requests, asked, kind="loglikelihood_rolling", quiet=disable_tqdm,
                            result_of=lambda answer: answer.logprob)

    def _scored(self, requests: Sequence[Instance], asked: Sequence[LikelihoodRequest | RollingRequest], *, kind: str,
                quiet: bool, result_of: Callable[[LikelihoodAnswer], Any]) -> list[Any]:
        """Results in the order of the requests; the cache is told of each as it comes."""
        results: list[Any] = [None] * len(asked)
        with jax.set_mesh(self._mesh), tqdm(total=len(asked), desc=kind, disable=quiet) as bar:
            begin = 0
            for chunk in cut_into_chunks(asked, CHUNK_CHARACTERS, size=request_characters):
                for batch in self._answerer.likelihoods(chunk):
                    for number, (answer, _) in batch.items():
                        place = begin + number
                        results[place] = result_of(answer)
                        self.cache_hook.add_partial(kind, requests[place].args, results[place])
                    bar.update(len(batch))
                begin += len(chunk)
        return results

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """A continuation of each context, up to the first of its stop strings."""
        prompts = [replace(_generation_request(*request.args, seed=self._seed), prompt_index=index)
                   for request, index in zip(requests, _prompt_indices(requests), strict=True)]
        settings = [replace(prompt, text="", prompt_index=0) for prompt in prompts]  # prompts of equal settings share batches
        order = sorted(range(len(prompts)), key=lambda n: str(settings[n]))
        results = [""] * len(prompts)
        with jax.set_mesh(self._mesh), tqdm(total=len(prompts), desc="generate_until", disable=disable_tqdm) as bar:
            for _, group in groupby(order, key=lambda n: settings[n]):
                numbers = list(group)
                answers, _ = self._answerer.generations([prompts[n] for n in numbers])
                for n, answer in zip(numbers, answers, strict=True):
                    results[n] = answer.texts[0]
                    self.cache_hook.add_partial("generate_until", requests[n].args, results[n])
                bar.update(len(numbers))
        return results


def _generation_request(text: str, wanted: dict[str, Any], *, seed: int) -> GenerationRequest:
    """A request from lm-evaluation-harness's generation arguments: greedy unless do_sample or a temperature asks to sample.

    Raises ConfigError for arguments that are not understood.
    """
    if unknown := set(wanted) - _GENERATION_ARGUMENTS:
        raise ConfigError(f"generation arguments {', '.join(sorted(unknown))} are not known here; known: "
                          f"{', '.join(sorted(_GENERATION_ARGUMENTS))}.")
    until = wanted.get("until") or ()
    stop = tuple(part for part in ([until] if isinstance(until, str) else until) if part)
    temperature = float(wanted.get("temperature") or 0.0)
    if not wanted.get("do_sample", temperature > 0):
        temperature = 0.0
    elif not temperature:
        temperature = 1.0
    return GenerationRequest(text, stop, max_tokens=int(wanted.get("max_gen_toks", _DEFAULT_MAX_TOKENS)), temperature=temperature,
                             top_p=float(wanted.get("top_p", 1.0)), top_k=int(wanted.get("top_k", 0)), seed=seed)


def _prompt_indices(requests: Sequence[Instance]) -> list[int]:
    """Prompt indices from each request's task, document and number within it, so that other requests change no sample.

    lm-evaluation-harness repeats a request of which it wants several samples; each repetition gets another index.
    """
    seen, indices = Counter[tuple](), []
    for request in requests:
        name = (request.task_name, request.doc_id, request.idx)
        indices.append(crc32(f"{request.task_name} {request.idx} {seen[name]}".encode()) << 32 | (request.doc_id or 0))
        seen[name] += 1
    return indices


def main() -> int:
    """The command line of lm-evaluation-harness, with `llama_jax` among its models; returns the exit code."""
    return exit_code_of(cli_evaluate)


if __name__ == "__main__":
    sys.exit(main())
