"""The steps of cleaning pipelines that datatrove lacks: reading raw files, editing documents, writing them; all of them count."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.writers.jsonl import JsonlWriter
from loguru import logger

from llama_jax.clean.items import DamagedInput, Dropped, Edit, InputFile, RawDocument, Read, open_raw, raw_position
from llama_jax.files.atomic import write_atomic

EXAMPLES = 100
"""Examples of kept documents, and of each reason to drop one, that the tasks of a step save together for --explain; every task
saves at least one."""
_EXAMPLE_CHARACTERS = 2_000
_SECONDS_BETWEEN_NOTES = 1.0


class CountedStep(PipelineStep):
    """A step that counts documents and UTF-8 bytes, in and out, and what is dropped by reason.

    The counts are datatrove's statistics, so that its executors save and add them: documents_in, bytes_in, documents_out,
    bytes_out, and `dropped/REASON` and `dropped_bytes/REASON`.
    """

    type = "counted"

    def __init__(self, name: str, *, examples: Path):
        """A step with a name unique in its stage; `examples` is the folder that gets a file of examples per task."""
        self.name = name
        super().__init__()
        self.stage = ""
        self._folder = examples
        self._examples: list[dict[str, str]] = []
        self._shown: Counter[str] = Counter()

    def count_in(self, text: str) -> None:
        """Count a document that arrives."""
        self.stat_update("documents_in")
        self.stat_update("bytes_in", value=len(text.encode(errors="surrogatepass")))

    def keep(self, document: Document, *, before: str) -> Document:
        """Count a document that is kept, and save the first as examples beside the text `before` this step."""
        self.stat_update("documents_out")
        self.stat_update("bytes_out", value=len(document.text.encode(errors="surrogatepass")))
        self._show("", document.id, before=before, after=document.text)
        return document

    def drop(self, reason: str, *, name: str, text: str) -> None:
        """Count a document that is dropped, and save the first of each reason as examples."""
        self.stat_update(f"dropped/{reason}")
        self.stat_update(f"dropped_bytes/{reason}", value=len(text.encode(errors="surrogatepass")))
        self._show(reason, name, before=text, after="")

    def _show(self, reason: str, name: str, *, before: str, after: str) -> None:
        if self._shown[reason] < EXAMPLES:
            self._shown[reason] += 1
            self._examples.append({"step": self.name, "reason": reason, "id": name, "before": before[:_EXAMPLE_CHARACTERS],
                                   "after": after[:_EXAMPLE_CHARACTERS]})

    def save_examples(self, rank: int, *, tasks: int = 1) -> None:
        """Write the examples of this task, one of `tasks`; called when its last document has passed."""
        left = dict.fromkeys(self._shown, max(1, EXAMPLES // tasks))
        saved = []
        for example in self._examples:
            left[example["reason"]] -= 1
            if left[example["reason"]] >= 0:
                saved.append(json.dumps(example, ensure_ascii=False))
        folder = self._folder / self.stage
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / f"{self.name}.{rank:05d}.json", ("[" + ",\n".join(saved) + "]\n").encode(errors="replace"))


class ReadFiles(CountedStep):
    """The first step of a stage: every task reads its part of the input files, in order, with a reader of their format.

    A file whose rest cannot be read is counted as `damaged/FILE: what is wrong`; what was read before stays.
    """

    def __init__(self, read: Read, files: list[InputFile], *, examples: Path, progress: Path):
        super().__init__("read", examples=examples)
        self._read, self._files, self._progress = read, files, progress

    def run(self, data=None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        note = _Progress(self._progress / self.stage / f"{rank:05d}")
        for file in self._files[rank::world_size]:
            self.stat_update("files")
            for item in self._items(file):
                note.update()
                if isinstance(item, Dropped):
                    self.stat_update("documents_in")
                    self.drop(str(item), name=f"{file.name}/{item.id}" if item.id else file.name, text="")
                    continue
                self.count_in(item.text)
                yield self.keep(Document(item.text, f"{file.name}/{item.id}" if item.id else file.name, metadata=item.metadata),
                                before=item.text)
            note.add(file.bytes)
        note.save()
        self.save_examples(rank, tasks=world_size)

    def _show(self, reason: str, name: str, *, before: str, after: str) -> None:
        if reason:  # what is kept is shown as the next step receives it
            super()._show(reason, name, before=before, after=after)

    def _items(self, file: InputFile) -> Iterator[RawDocument | Dropped]:
        try:
            yield from self._read(file.path)
        except DamagedInput as error:
            self.stat_update(f"damaged/{file.name}: {error}")
        except OSError as error:
            self.stat_update(f"damaged/{file.name}: {error.strerror or error}")


class EditDocuments(CountedStep):
    """Replaces the text of every document by what a function makes of it, or drops the document."""

    def __init__(self, name: str, edit: Edit, *, examples: Path):
        super().__init__(name, examples=examples)
        self._edit = edit

    def run(self, data, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        for document in data:
            before = document.text
            self.count_in(before)
            try:
                with self.track_time():
                    document.text = self._edit(before, document.metadata)
                    if not document.text or document.text.isspace():
                        raise Dropped("empty")
            except Dropped as dropped:
                self.drop(str(dropped), name=document.id, text=before)
            except RecursionError:
                self.drop("nested too deeply", name=document.id, text=before)
            except Exception as error:  # of a library that meets what its authors did not think of; one document in a million
                logger.exception(document.id)
                self.drop(f"{self.name} failed: {type(error).__name__}", name=document.id, text=before)
            else:
                yield self.keep(document, before=before)
        self.save_examples(rank, tasks=world_size)


class ReadDocuments(PipelineStep):
    """The first step of a later stage: every task reads what the task of the same number wrote in an earlier stage."""

    type, name = "stage", "read again"

    def __init__(self, folder: Path):
        super().__init__()
        self._folder = folder

    def run(self, data=None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        file = self._folder / f"{rank:05d}.jsonl.zst"
        if not file.exists():
            return  # that task kept nothing
        with open_raw(file) as stream:
            for line in stream:
                yield Document(**json.loads(line))


class WriteDocuments(JsonlWriter):
    """The last step of a stage: documents as JSON lines with `text`, `id` and `metadata`, one file RANK.jsonl.zst per task.

    zstd, because gzip's files hold the time at which they were made.
    """

    def __init__(self, output: Path):
        super().__init__(str(output), compression="zstd")

    def _default_adapter(self, document: Document) -> dict[str, Any]:
        """What is written of a document."""
        return _as_json({"text": document.text, "id": document.id, "metadata": document.metadata})


def _as_json(value: Any) -> Any:
    """Values as JSON in UTF-8 can hold them: half a UTF-16 pair becomes a question mark, an integer above 64 bits a text."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {_as_json(str(name)): _as_json(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(member) for member in value]
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        return str(value)
    return value


class _Progress:
    """A file that says how many bytes of input a task has read, for the command that waits for it."""

    def __init__(self, file: Path):
        self._file, self._bytes, self._saved = file, 0, 0.0

    def add(self, size: int) -> None:
        """A file of `size` bytes is read."""
        self._bytes += size

    def update(self) -> None:
        """Save at most once a second."""
        if time.monotonic() - self._saved > _SECONDS_BETWEEN_NOTES:
            self.save(raw_position())

    def save(self, more: int = 0) -> None:
        """Write the file; `more` are bytes of a file that is being read."""
        self._saved = time.monotonic()
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(str(self._bytes + more))
