"""Data sets of the Hugging Face hub as text, streamed through the `datasets` library without a copy on disk (extra `hub`)."""

import hashlib
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from llama_jax.data.parquet import check_text_column, texts_of_column
from llama_jax.errors import ConfigError, DataError, LlamaError

LOG = logging.getLogger(__name__)

HUB_PREFIX = "hf://"
"""Prefix of the names of data sets on the hub."""
_ROWS = 1024
"""Rows that are taken from the library at one time."""
_NAME = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)(?:/([^/:]+))?(?::([^/:]+))?")


@dataclass(frozen=True)
class HubSplit:
    """One split of a data set on the hub. A folder OWNER/NAME below the working directory takes the data set's place."""

    path: str
    """OWNER/NAME."""
    config: str | None
    split: str

    @classmethod
    def parse(cls, name: str) -> "HubSplit":
        """Read hf://datasets/OWNER/NAME[/CONFIG][:SPLIT], where SPLIT is "train" if it is left out. Raises ConfigError."""
        match = _NAME.fullmatch(name)
        if not match:
            raise ConfigError(f"{name} is not the name of a data set; it should read hf://datasets/OWNER/NAME, perhaps with "
                              "/CONFIG and :SPLIT after it.")
        return cls(match[1], match[2], match[3] or "train")

    @property
    def name(self) -> str:
        """The name that `parse` reads."""
        return f"{HUB_PREFIX}datasets/{self.path}{f'/{self.config}' if self.config else ''}:{self.split}"

    def fingerprint(self) -> list:
        """[name, number of files, hash of their addresses and versions]; the library resolves the newest version once."""
        files = (self._builder.config.data_files or {}).get(self.split, [])
        known = [list(map(str, files)), getattr(files, "origin_metadata", []), self._builder.config.name, self._builder.hash]
        return [self.name, len(files), hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]]

    def documents(self, text_key: str) -> Iterator[str]:
        """Yield the texts under the column `text_key` that are not blank.

        Raises:
            DataError: the hub, the network or the column is missing, or the text is not UTF-8; it names the data set.
        """
        rows = 0
        try:
            stream = self._builder.as_streaming_dataset(split=self.split).with_format("arrow")
            for batch in stream.iter(batch_size=_ROWS):
                check_text_column(batch.schema, text_key, where=self.name)
                yield from (text for text in texts_of_column(batch.column(text_key), where=self.name, first=rows)
                            if text and not text.isspace())
                rows += len(batch)
        except LlamaError:
            raise
        except Exception as error:  # the library raises errors of its own, of the hub, of the network and of file formats
            raise self._failure(error) from None

    @cached_property
    def _builder(self) -> Any:
        """The library's handle of the data set, which holds the addresses of its files."""
        try:
            import datasets
        except ModuleNotFoundError:
            raise DataError(f'{self.name} needs the `datasets` library; install it with pip install -e ".[hub]".') from None
        if Path(self.path).is_dir():
            LOG.warning("%s: the folder %s in the working directory is read in place of the hub's data set", self.name, self.path)
        try:
            return datasets.load_dataset_builder(self.path, self.config)
        except Exception as error:  # as above
            raise self._failure(error) from None

    def _failure(self, error: Exception) -> DataError:
        reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else "no reason given"
        return DataError(f"cannot read {self.name}: {type(error).__name__}: {reason}; check the name and the network, and run "
                         "the same command again to go on.")
