"""A model answers requests: likelihoods in packed rows, generations in batches, spread over the mesh in use."""

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

DECODING_ROWS = {"cpu": 32}
"""Continuations decoded together on a platform; others take the default."""
DEFAULT_DECODING_ROWS = 256

_ReportShare = Callable[[float], None]
_TokenPairs = list[tuple[Sequence[int], Sequence[int]]]


def run_and_step(checkpoint: str) -> tuple[Path, int | None]:
    """(run directory, step) of a checkpoint; a folder of another format is itself, without a step."""
    path = Path(checkpoint)
    if path.is_dir() and path.parent.name != "checkpoints" and not (path / "checkpoints").is_dir():
        return path, None
    return find_checkpoint(path)


def _joined(parts: Mapping[int, Likelihood], truncated: int) -> LikelihoodAnswer:
    """One score of the parts of a text, which are numbered in its order."""
    ordered = [parts[place] for place in sorted(parts)]
    return LikelihoodAnswer(sum(part.logprob for part in ordered), sum(len(part.token_logprobs) for part in ordered),
                 all(part.is_greedy for part in ordered), truncated)


@dataclass(frozen=True)
class Answerer:
    """A model with its tokenizer. Where a mesh is in use (`jax.set_mesh`), rows are spread over it."""

    model: Transformer
    params: Any
    tokenizer: Tokenizer

    @cached_property
    def fingerprint(self) -> str:
        """What decides an answer beside the request, as one text: every parameter, the config and the tokenizer."""
        return model_fingerprint(self.model, self.params, tokenizer=self.tokenizer)

    @cached_property
    def decoding_params(self) -> DecodingParams:
        """The parameters as decoding reads them."""
        return decoding_params(self.model, self.params)

    def scores(self, requests: Sequence[LikelihoodRequest | RollingRequest], known: Container[int] = (),
               report: _ReportShare | None = None) -> Iterator[dict[int, tuple[LikelihoodAnswer, int]]]:
        """Answers by the number of their request, each with how many tokens were scored or read for it, as they come.

        What is `known` is asked again only where it shares a batch with what is not; `report` hears the share of the work
        that is newly done. A context that does not fit loses its beginning, which the Score counts; a continuation longer
        than the model's context is scored in windows.
        """
        cut = [self.pairs_of(request) for request in requests]
        pairs = [pair for pieces, _ in cut for pair in pieces]
        owners = [number for number, (pieces, _) in enumerate(cut) for _ in pieces]
        done = {place for place, number in enumerate(owners) if number in known}
        heard = report or (lambda share: None)
        heard(len(done) / len(pairs))
        parts: list[dict[int, Likelihood]] = [{} for _ in requests]
        for some in loglikelihood_batches(self.model, self.params, pairs, known=done):
            for place, part in some.items():
                parts[owners[place]][place] = part
            heard(len(some.keys() - done) / len(pairs))
            whole = [number for number in {owners[place] for place in some} if len(parts[number]) == len(cut[number][0])]
            if whole:
                yield {number: (_joined(parts[number], cut[number][1]), sum(len(a) + len(b) for a, b in cut[number][0]))
                       for number in whole}

    def pairs_of(self, request: LikelihoodRequest | RollingRequest) -> tuple[_TokenPairs, int]:
        """(context, continuation) ids that together answer a request, and how many ids the context loses."""
        most, bos = self.model.config.max_length, self.tokenizer.bos_id
        if isinstance(request, RollingRequest):
            return list(rolling_windows([bos, *self.tokenizer.encode_array(request.text).tolist()], most)), 0
        context, continuation = encode_pair(self.tokenizer, context=request.context, continuation=request.continuation)
        if len(continuation) > most:
            return list(rolling_windows([context[-1], *continuation], most)), len(context) - 1
        return [(context, continuation)], max(0, len(context) + len(continuation) - 1 - most)

    def texts(
        self, prompts: Sequence[GenerationRequest], report: _ReportShare | None = None
    ) -> tuple[list[GenerationAnswer], list[int]]:
        """Answers to prompts that differ in their text and place only, and how many tokens were read or written for each.

        A prompt loses its beginning where it leaves less room than max_tokens or half of the model's context.
        """
        asked, ways = prompts[0], row_ways()
        if ways & (ways - 1):
            raise ConfigError(f"generation wants a power of two of devices that share the rows, got {ways}; set --tensor.")
        cut = [self.ids_of(prompt) for prompt in prompts]
        places = [(encode_prompt(self.tokenizer, ids, config=self.model.config), prompt.place)
                  for (ids, _), prompt in zip(cut, prompts, strict=True)]
        padded = [*places, *[places[-1]] * (-len(places) % ways)]
        rows = max(DECODING_ROWS.get(jax.default_backend(), DEFAULT_DECODING_ROWS), ways)
        made: list[list[tuple[str, str]]] = [[] for _ in prompts]
        tokens = [len(ids) for ids, _ in cut]
        for begin in range(0, asked.num_samples, rows):
            count = min(rows, asked.num_samples - begin)
            sampling = Sampling(max_new_tokens=asked.max_tokens, temperature=asked.temperature, top_p=asked.top_p,
                                top_k=asked.top_k, num_samples=count, stop=asked.stop, seed=asked.seed % 2**32)
            batch = max(ways, rows // count // ways * ways)
            heard = (lambda n, count=count: report(n / len(padded) * count / asked.num_samples)) if report else None
            block = [EncodedPrompt(ids, place, begin) for ids, place in padded]
            results = generate_encoded(self.model, self.decoding_params, tokenizer=self.tokenizer, prompts=block,
                                       sampling=sampling, batch_size=batch, report=heard)
            for number, result in enumerate(results[: len(prompts) * count]):
                made[number // count].append((result.text, result.finish_reason))
                tokens[number // count] += len(result.tokens)
        answers = [GenerationAnswer(tuple(text for text, _ in some), tuple(reason for _, reason in some), lost)
                   for some, (_, lost) in zip(made, cut, strict=True)]
        return answers, tokens

    def ids_of(self, prompt: GenerationRequest) -> tuple[list[int], int]:
        """What begins a text and the prompt's last ids that fit, and how many do not."""
        most = self.model.config.max_length
        ids, room = self.tokenizer.encode(prompt.text), max(most - prompt.max_tokens, most // 2, 1) - 1
        lost = max(0, len(ids) - room)
        return [*self.tokenizer.begin, *ids[lost:]], lost
