"""A model answers requests: log-probabilities with prefix sharing in packed rows, generations in batches."""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax

from llama_jax.errors import ConfigError
from llama_jax.evaluation.fingerprint import model_fingerprint
from llama_jax.evaluation.task import GenerationAnswer, GenerationRequest, LikelihoodAnswer, LikelihoodRequest, RollingRequest
from llama_jax.formats.run import find_checkpoint
from llama_jax.inference.generate import generate_encoded
from llama_jax.inference.params import DecodingParams, decoding_params
from llama_jax.inference.prompts import EncodedPrompt, encode_prompt
from llama_jax.inference.sampling import Sampling
from llama_jax.model.decoder import Transformer
from llama_jax.parallel.rules import row_ways
from llama_jax.scoring.likelihood import Likelihood, encode_pair, loglikelihood_batches, rolling_windows
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.tokenizer.load import require_tokenizer

DECODING_ROWS = {"cpu": 32}
"""Continuations that are decoded together, by platform."""
DEFAULT_DECODING_ROWS = 256
"""Continuations that are decoded together on every other platform."""

_ReportShare = Callable[[float], None]
"""Called with the share of the work that is newly done."""
_TokenPairs = list[tuple[Sequence[int], Sequence[int]]]
"""(context, continuation) pairs of token ids."""


def decoding_rows() -> int:
    """Continuations that are decoded together on this platform."""
    return DECODING_ROWS.get(jax.default_backend(), DEFAULT_DECODING_ROWS)


def run_and_step(checkpoint: str) -> tuple[Path, int | None]:
    """(run directory, step) of a checkpoint; a Hugging Face or Meta folder is (itself, None)."""
    path = Path(checkpoint)
    if path.is_dir() and path.parent.name != "checkpoints" and not (path / "checkpoints").is_dir():
        return path, None
    return find_checkpoint(path)


@dataclass(frozen=True)
class Answerer:
    """A model with its tokenizer. Where a mesh is in use (`jax.set_mesh`), rows are spread over its devices."""

    model: Transformer
    params: Any
    """Its parameter tree; or its DecodingParams, which then are the one copy of its weights."""
    tokenizer: Tokenizer
    known_fingerprint: str = ""
    """The fingerprint, where it was computed while the weights were read."""

    def __post_init__(self):
        require_tokenizer(self.tokenizer, "evaluation")

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything besides the request that decides an answer: parameters, architecture and tokenizer."""
        return self.known_fingerprint or model_fingerprint(self.model, self.params, tokenizer=self.tokenizer)

    @cached_property
    def decoding_params(self) -> DecodingParams:
        """The parameters as decoding reads them."""
        return decoding_params(self.model, self.params)

    def likelihoods(
        self, requests: Sequence[LikelihoodRequest | RollingRequest], *, known: Container[int] = (),
        report: _ReportShare | None = None,
    ) -> Iterator[dict[int, tuple[LikelihoodAnswer, int]]]:
        """Answers by the index of their request, batch by batch, each with the number of its tokens (context included).

        A context that does not fit into the model's context loses its beginning, which the answer counts; a continuation
        longer than the model's context is scored in windows.

        Args:
            known: Indices of requests whose answers are known. They are computed again only where they share a batch with
                others, so that a batch holds the same requests, and its results the same bits, in every run.
        """
        pieces, lost = [], []
        for request in requests:
            request_pieces, request_lost = self._token_pairs(request)
            pieces.append(request_pieces)
            lost.append(request_lost)
        pairs = [pair for request_pieces in pieces for pair in request_pieces]
        owners = [number for number, request_pieces in enumerate(pieces) for _ in request_pieces]
        done = {place for place, number in enumerate(owners) if number in known}
        if report:
            report(len(done) / len(pairs))
        parts: list[dict[int, Likelihood]] = [{} for _ in requests]
        for batch in loglikelihood_batches(self.model, self.params, pairs, known=done):
            for place, part in batch.items():
                parts[owners[place]][place] = part
            if report:
                report(len(batch.keys() - done) / len(pairs))
            touched = {owners[place] for place in batch}
            complete = [number for number in touched if len(parts[number]) == len(pieces[number])]
            if complete:
                yield {number: (_join_parts(parts[number], truncated=lost[number]), _count_ids(pieces[number]))
                       for number in complete}

    def _token_pairs(self, request: LikelihoodRequest | RollingRequest) -> tuple[_TokenPairs, int]:
        """The pairs whose scores together answer a request, and how many ids its context loses."""
        most, bos = self.model.config.max_length, self.tokenizer.bos_id
        if isinstance(request, RollingRequest):
            return list(rolling_windows([bos, *self.tokenizer.encode_array(request.text).tolist()], most)), 0
        context, continuation = encode_pair(self.tokenizer, context=request.context, continuation=request.continuation)
        if len(continuation) > most:
            return list(rolling_windows([context[-1], *continuation], most)), len(context) - 1
        return [(context, continuation)], max(0, len(context) + len(continuation) - 1 - most)

    def generations(
        self, prompts: Sequence[GenerationRequest], *, report: _ReportShare | None = None
    ) -> tuple[list[GenerationAnswer], list[int]]:
        """Answers to prompts that differ in text and prompt index only, and how many tokens were read and written for each.

        A prompt loses its beginning where it would leave fewer tokens than max_tokens or half of the model's context.
        """
        ways = row_ways()
        if ways & (ways - 1):
            raise ConfigError(f"generation wants a power of two of devices that share the rows, got {ways}; set --tensor.")
        ids, lost = [], []
        for prompt in prompts:
            prompt_ids, prompt_lost = self._prompt_ids(prompt)
            ids.append(encode_prompt(self.tokenizer, prompt_ids, config=self.model.config))
            lost.append(prompt_lost)
        indices = [prompt.prompt_index for prompt in prompts]
        padding = -len(prompts) % ways  # the rows of a batch are divided evenly among the devices
        padded_ids, padded_indices = ids + ids[-1:] * padding, indices + indices[-1:] * padding
        rows, samples = max(decoding_rows(), ways), prompts[0].num_samples
        texts: list[list[str]] = [[] for _ in prompts]
        reasons: list[list[str]] = [[] for _ in prompts]
        tokens = list(map(len, ids))
        for begin in range(0, samples, rows):
            count = min(rows, samples - begin)
            block = [EncodedPrompt(some, index, begin) for some, index in zip(padded_ids, padded_indices, strict=True)]
            block_report = _rescaled(report, count / samples / len(block)) if report else None
            results = generate_encoded(
                self.model, self.decoding_params, tokenizer=self.tokenizer, prompts=block, report=block_report,
                sampling=_sampling_of(prompts[0], num_samples=count), batch_size=max(ways, rows // count // ways * ways))
            for place, result in enumerate(results[: len(prompts) * count]):
                texts[place // count].append(result.text)
                reasons[place // count].append(result.finish_reason)
                tokens[place // count] += len(result.tokens)
        return [GenerationAnswer(tuple(some), tuple(why), cut)
                for some, why, cut in zip(texts, reasons, lost, strict=True)], tokens

    def _prompt_ids(self, prompt: GenerationRequest) -> tuple[list[int], int]:
        """The prompt's last ids that fit, after what begins every text, and how many ids do not fit."""
        most = self.model.config.max_length
        ids = self.tokenizer.encode(prompt.text)
        space = max(most - prompt.max_tokens, most // 2, 1) - 1
        lost = max(0, len(ids) - space)
        return [*self.tokenizer.begin, *ids[lost:]], lost


def _join_parts(parts: Mapping[int, Likelihood], *, truncated: int) -> LikelihoodAnswer:
    """One answer from the parts of a text, whose keys are in the order of the text."""
    ordered = [parts[place] for place in sorted(parts)]
    return LikelihoodAnswer(
        sum(part.logprob for part in ordered), sum(len(part.token_logprobs) for part in ordered),
        all(part.is_greedy for part in ordered), truncated)


def _count_ids(pairs: _TokenPairs) -> int:
    return sum(len(context) + len(continuation) for context, continuation in pairs)


def _rescaled(report: _ReportShare, scale: float) -> _ReportShare:
    """A report of `scale` for every unit of work that it hears of."""
    return lambda done: report(done * scale)


def _sampling_of(prompt: GenerationRequest, *, num_samples: int) -> Sampling:
    return Sampling(
        max_new_tokens=prompt.max_tokens, temperature=prompt.temperature, top_p=prompt.top_p, top_k=prompt.top_k,
        num_samples=num_samples, stop=prompt.stop, seed=prompt.seed % 2**32)  # Sampling takes 32 bits
