"""The table of tokens that a completion may ask for (`logprobs`): names of tokens, where they begin in the text, choices."""

from collections import deque
from collections.abc import Sequence

from llama_jax.serving.job import CompletionEvent, TokenLogprob
from llama_jax.tokenizer.base import IncrementalDecoder, Tokenizer


def token_names(tokenizer: Tokenizer, vocab_size: int) -> tuple[str, ...]:
    r"""A unique name for every id of a model's vocabulary, as `tokens` and `top_logprobs` of an answer show it.

    The name of a token is its text, or `bytes:\xe2` where it stands for bytes that are not a character. Among several tokens
    with one text, the first that is not a byte keeps the text as its name; a byte is then called `bytes:\x41`, and any other
    `token_id:17`, as is an id without text or beyond the tokenizer (a vocabulary padded to a multiple of 64).
    """
    pieces = [tokenizer.piece(i) for i in range(min(vocab_size, tokenizer.vocab_size))]
    is_byte = [tokenizer.is_byte(i) for i in range(len(pieces))]
    names = [f"token_id:{i}" for i in range(vocab_size)]
    taken = {""}
    for i in sorted(range(len(pieces)), key=is_byte.__getitem__):  # bytes last
        candidates = [pieces[i]]
        if is_byte[i]:
            candidates.append("bytes:" + "".join(f"\\x{byte:02x}" for byte in pieces[i].encode()))
        for name in candidates:
            if name not in taken:
                names[i] = name
                break
        taken.add(names[i])
    return tuple(names)


class TokenOffsets:
    """Where each token begins in a text, in characters: the length of the text that the tokens before it settle.

    A token that continues a character of several bytes begins where that character does, and one without text begins where
    the next token does. An offset is known once the token's first character is, which may take later tokens.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int] = ()):
        """`prompt` holds the ids that the text continues."""
        self._decoder = IncrementalDecoder(tokenizer)
        self._decoder.push(prompt)
        self.length = 0
        """Characters of the text so far."""
        self._pending: list[str] = []
        """For each token whose offset is not known yet, the text of the unfinished character before it."""

    def push(self, ids: Sequence[int], last: bool = False) -> list[int]:
        """Take new tokens and return the offsets that are now known, in order; `last` says that no more tokens will come."""
        known = []
        for token in ids:
            self._pending.append(self._decoder.pending)
            new_text = self._decoder.push([token])
            known += self._settle(new_text, is_certain=not self._decoder.pending)
        if last:
            known += self._settle(self._decoder.push([], last=True), is_certain=True)
        return known

    def _settle(self, new_text: str, *, is_certain: bool) -> list[int]:
        """Offsets of the pending tokens, which are known where text has come or where no character is unfinished."""
        if not (new_text or is_certain):
            return []
        known = [self.length + _common_prefix_length(pending, new_text) for pending in self._pending]
        self._pending = []
        self.length += len(new_text)
        return known


def _common_prefix_length(one: str, other: str) -> int:
    """Number of characters of the longest common prefix."""
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count


class ChoiceBuilder:
    """Makes the entries of `choices` for one completion from its events: each token comes with the text in which it begins."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int], *, names: Sequence[str], echo: str | None,
                 num_top: int | None):
        """Begin a completion.

        Args:
            tokenizer: The model's tokenizer.
            prompt: Ids of the prompt.
            names: Names of all ids, as `token_names` gives them.
            echo: Text of the prompt, where it is to stand before the completion.
            num_top: Most likely tokens beside each token; None for choices without the table.
        """
        self._names, self._num_top, self._echo = names, num_top, echo or ""
        # an echoed prompt is part of the text, and its tokens of the table; otherwise the text only continues it
        self._offsets = TokenOffsets(tokenizer, prompt if num_top is not None and echo is None else ())
        self._shift = 0
        """Length of the echoed prompt minus that of its decoded ids, which may differ from it."""
        self._length = 0
        """Characters of the choice so far."""
        self._tokens: deque[TokenLogprob] = deque()
        """Tokens that have not been put into a table yet."""
        self._known: deque[int] = deque()
        """Offsets of the first of these tokens, as far as they are known."""
        self.num_tokens = 0
        """Tokens generated so far."""

    def build(self, index: int, event: CompletionEvent) -> dict:
        """The entry of `choices` for one event, with the echoed prompt before the first."""
        echo, self._echo = self._echo, ""
        self._length += len(echo) + len(event.text)
        self.num_tokens = event.num_tokens
        table = None if self._num_top is None else self._table(event, len(echo))
        return {"index": index, "text": echo + event.text, "logprobs": table, "finish_reason": event.finish_reason}

    def _table(self, event: CompletionEvent, echo_length: int) -> dict[str, list]:
        """Tokens that begin in the text so far, and with the last event all: those of a stop string begin at the text's end."""
        has_ended = event.finish_reason is not None
        if event.prompt:
            self._add(event.prompt)
            # a tokenizer may have changed the prompt's characters; the echo is the prompt as it came
            self._known = deque(min(offset, echo_length) for offset in self._known)
            self._shift = echo_length - self._offsets.length
        self._add(event.tokens, last=has_ended)
        tokens, offsets = [], []
        while self._known and (has_ended or self._known[0] < self._length):
            tokens.append(self._tokens.popleft())
            offsets.append(min(self._known.popleft(), self._length))
        return {"tokens": [self._names[token.id] for token in tokens], "token_logprobs": [token.logprob for token in tokens],
                "top_logprobs": [self._top(token) for token in tokens], "text_offset": offsets}

    def _add(self, tokens: Sequence[TokenLogprob], last: bool = False) -> None:
        """Take more tokens, and what is now known of their offsets."""
        self._tokens += tokens
        self._known += (offset + self._shift for offset in self._offsets.push([token.id for token in tokens], last))

    def _top(self, token: TokenLogprob) -> dict[str, float] | None:
        """The most likely tokens by name, and the token itself where it is not among them."""
        if token.top is None:
            return None
        top = {self._names[i]: logprob for i, logprob in token.top[: self._num_top]}
        return top | {self._names[token.id]: token.logprob}
