"""Text of a growing list of ids: whole characters only, and nothing from a stop string on."""

from collections.abc import Sequence

from llama_jax.tokenizer.base import IncrementalDecoder


class TextStream:
    """Turns new ids into new text, holding back what the next ids could still change."""

    def __init__(self, decoder: IncrementalDecoder, prompt: Sequence[int] = (), *, stop: Sequence[str] = ()):
        """`decoder` is new, and `prompt` the ids that the text goes on from."""
        self._decoder = decoder
        decoder.push(prompt)
        self._stop = tuple(stop)
        self._held = ""
        self.text = ""
        """All that was given out."""
        self.stopped = False
        """A stop string came; later ids are ignored."""

    def push(self, ids: Sequence[int], last: bool = False) -> str:
        """Text that is now certain; `last` says that no more will come."""
        if self.stopped:
            return ""
        self._held += self._decoder.push(ids, last)
        return self._give(last)

    def _give(self, last: bool) -> str:
        """What of the held text is neither a stop string nor perhaps the beginning of one."""
        found = [(at + len(text), at) for text in self._stop if (at := self._held.find(text)) >= 0]
        if found:
            self.stopped = True
            _, at = min(found)  # the first to be complete, however the text is cut into ids
            new, self._held = self._held[:at], ""
        else:
            keep = 0 if last else max((self._overlap(text) for text in self._stop), default=0)
            new, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        self.text += new
        return new

    def _overlap(self, stop: str) -> int:
        """Length of the longest beginning of `stop` that the held text ends with."""
        return next(n for n in range(min(len(stop) - 1, len(self._held)), -1, -1) if self._held.endswith(stop[:n]))
