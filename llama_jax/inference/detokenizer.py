"""Incremental detokenization: the text of a growing list of ids in whole characters, which ends before a stop string."""

from collections.abc import Sequence

from llama_jax.tokenizer.base import IncrementalDecoder


class TextStream:
    """Turns the ids of one text into text as they come, and holds back what later ids could still change.

    That is an unfinished character, and text that could be the beginning of a stop string.
    """

    def __init__(self, decoder: IncrementalDecoder | None, prompt: Sequence[int] = (), *, stop: Sequence[str] = ()):
        """Begin after a prompt.

        Args:
            decoder: A new decoder; None: ids have no text.
            prompt: Ids that the text continues; they decide, for example, whether it begins with a space.
            stop: Texts before which the text ends.
        """
        self._decoder = decoder
        if decoder is not None:
            decoder.push(prompt)
        self._stop = tuple(stop)
        self._held = ""
        self.text = ""
        """All text that `push` has returned."""
        self.stopped = False
        """Whether a stop string has come; later ids are ignored."""

    def push(self, ids: Sequence[int], last: bool = False) -> str:
        """Take new ids and return the text that is now certain; `last` says that no more ids will come."""
        if self.stopped or self._decoder is None:
            return ""
        self._held += self._decoder.push(ids, last)
        new_text = self._release(last)
        self.text += new_text
        return new_text

    def _release(self, last: bool) -> str:
        """Take from the held text what precedes a stop string, or all but a possible beginning of one."""
        found = []
        for stop in self._stop:
            begin = self._held.find(stop)
            if begin >= 0:
                found.append((begin + len(stop), begin))
        if found:
            # the stop string that is complete first wins: the result must not depend on how many ids come at a time
            self.stopped = True
            _, begin = min(found)
            new_text, self._held = self._held[:begin], ""
            return new_text
        kept = 0 if last else max((self._overlap(stop) for stop in self._stop), default=0)
        border = len(self._held) - kept
        new_text, self._held = self._held[:border], self._held[border:]
        return new_text

    def _overlap(self, stop: str) -> int:
        """Length of the longest proper prefix of `stop` that the held text ends with."""
        for length in range(min(len(stop) - 1, len(self._held)), 0, -1):
            if self._held.endswith(stop[:length]):
                return length
        return 0
