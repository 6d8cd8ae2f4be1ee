"""Folders in a bucket (gs:// and s3://): everything works on a copy on this machine, which is brought in step with the bucket.

A file of a bucket appears whole or not at all, but a folder does not. So the file of a checkpoint that orbax writes last is also
uploaded last, and a step without it is taken for none.
"""

import hashlib
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from llama_jax.errors import ConfigError, DataError, StorageError
from llama_jax.files.atomic import make_folder, write_atomic
from llama_jax.files.lock import LOCK_FILE
from llama_jax.files.storage import reason_of
from llama_jax.interruption import done_before_end

SCRATCH_VARIABLE = "LLAMA_JAX_SCRATCH"
"""Environment variable that names the folder of the local copies; without it they are in ~/.cache/llama_jax/buckets."""
_DRIVERS = {"s3": "s3fs", "gs": "gcsfs"}
_INDEX = ".bucket.json"
_LAST_FILE = "_CHECKPOINT_METADATA"
_STEP = re.compile(r"checkpoints/(\d+)/")
_SECONDS_BETWEEN_UPLOADS = 10.0


def is_remote(path: str) -> bool:
    """Whether a path names a place in a bucket."""
    return path.partition("://")[0] in _DRIVERS and "://" in path


class BucketFolder:
    """A folder (or a single file) in a bucket, and its copy on this machine.

    Raises ConfigError where the library for its scheme is missing; every method raises StorageError where the bucket cannot be
    reached or does not take a file.
    """

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        scheme, _, self._place = self.url.partition("://")
        if not self._place.strip("/"):
            raise ConfigError(f"{url} names no bucket; expected {scheme}://BUCKET/FOLDER.")
        scratch = os.environ.get(SCRATCH_VARIABLE) or Path.home() / ".cache/llama_jax/buckets"
        self.local = Path(scratch).absolute() / scheme / self._place
        self._filesystem = _filesystem(scheme)
        digest = hashlib.sha256(self._place.encode()).hexdigest()[:8]
        self._index_file = self.local.parent / f"{_INDEX}.{self.local.name}.{digest}"
        self._index: dict[str, list] = self._read_index()
        """[size, modification time, tag of the bucket] of each file that is the same here and there, by its name."""

    def remote_files(self) -> dict[str, str]:
        """The files in the bucket by name below the folder ("" is the folder's own name), and a tag that tells their version."""
        with self._errors("read"):
            self._filesystem.invalidate_cache()
            try:
                found = self._filesystem.find(self._place, detail=True)
            except FileNotFoundError:
                return {}
        return {path[len(self._place) :].lstrip("/"): _tag(info) for path, info in found.items()
                if path == self._place or path.startswith(self._place + "/")}

    def is_ahead(self, remote: dict[str, str]) -> bool:
        """Whether the run of the local copy has come as far as that in the bucket: a session of this machine went on with it.

        Raises ConfigError where the bucket's folder was emptied since.
        """
        steps = complete_steps(self._local_files())
        if steps and self._index and not remote:
            raise ConfigError(f"{self.url} is empty, and its copy {self.local} holds a run: remove the copy to begin anew, or "
                              "name another folder.")
        return bool(steps) and max(steps) >= max(complete_steps(remote), default=0)

    def pull(self, *, step: int | None = None, newest: int = 1) -> int:
        """Fetch what is missing here or has another version there; returns the number of files that were fetched.

        Args:
            step: the checkpoint that is wanted of a run; None: the newest ones that are complete.
            newest: how many of these.
        """
        remote = self.remote_files()
        steps = {step} if step is not None else set(sorted(complete_steps(remote))[-newest:])
        missing = [name for name, tag in sorted(remote.items())
                   if _step_of(name) in {None, *steps} and not self._is_current(name, tag)]
        for name in missing:
            self._fetch(name, remote[name])
        self._write_index()
        return len(missing)

    def push(self) -> None:
        """Upload what is new, the last file of a checkpoint after its others; then remove there what was removed here."""
        files = self._local_files()
        try:
            for name in sorted(files, key=lambda name: (_step_of(name) or -1, Path(name).name == _LAST_FILE, name)):
                self._upload(name)
            gone = [name for name in self._index if not (self.local / name).exists()]
            for name in sorted(gone, key=lambda name: Path(name).name != _LAST_FILE):
                with self._errors("remove a file of"), suppress(FileNotFoundError):
                    self._filesystem.rm_file(self._join(name))
                del self._index[name]
        finally:
            self._write_index()

    def _local_files(self) -> list[str]:
        """Names of the files here that belong into the bucket; what is unfinished does not."""
        if self.local.is_file():
            return [""]
        names = [str(path.relative_to(self.local)) for path in self.local.rglob("*") if path.is_file()]
        return [name for name in names if not name.endswith(".tmp") and Path(name).name != LOCK_FILE and "-tmp/" not in f"{name}/"
                and not any(part.startswith(".") and part.endswith(".unfinished") for part in Path(name).parts)]

    def _is_current(self, name: str, tag: str) -> bool:
        entry = self._index.get(name)
        return entry is not None and entry[2] == tag and entry[:2] == _stat(self.local / name)

    def _fetch(self, name: str, tag: str) -> None:
        file = self.local / name if name else self.local
        make_folder(file.parent)
        temporary = file.with_name(file.name + ".tmp")
        with self._errors("read"):
            self._filesystem.get_file(self._join(name), str(temporary))
            temporary.replace(file)
        self._index[name] = [*_stat(file), tag]

    def _upload(self, name: str) -> None:
        file = self.local / name if name else self.local
        before = _stat(file)
        if before is None or before == self._index.get(name, [])[:2]:
            return
        with self._errors("write"):
            try:
                if before[0] < 1 << 24:  # files that grow are read at once, so that what is uploaded is what was there
                    self._filesystem.pipe_file(self._join(name), file.read_bytes())
                else:
                    self._filesystem.put_file(str(file), self._join(name))
            except FileNotFoundError:
                if file.exists():  # there is no such bucket
                    raise
                return  # removed meanwhile
            self._filesystem.invalidate_cache()
            self._index[name] = [*before, _tag(self._filesystem.info(self._join(name)))]

    def _join(self, name: str) -> str:
        return f"{self._place}/{name}" if name else self._place

    def _read_index(self) -> dict[str, list]:
        try:
            return dict(json.loads(self._index_file.read_text()))
        except (OSError, ValueError, TypeError):
            return {}

    def _write_index(self) -> None:
        make_folder(self._index_file.parent)
        write_atomic(self._index_file, json.dumps(self._index).encode())

    @contextmanager
    def _errors(self, verb: str) -> Iterator[None]:
        """Turn what the libraries raise, each errors of its own, into a StorageError."""
        try:
            yield
        except Exception as error:
            raise StorageError(f"cannot {verb} {self.url}: {reason_of(error)}.", reason_of(error)) from None


def fetched(path: str, *, check: Callable[[Path], object] | None = None) -> str:
    """The copy on this machine of a file or folder in a bucket, after it was fetched; any other path as it is.

    `check` is called with the copy where anything was fetched. Raises DataError where the bucket holds nothing there.
    """
    if not is_remote(path):
        return path
    run, _, step = path.rstrip("/").rpartition("/checkpoints/")
    is_step = bool(run) and step.isdigit()
    folder = BucketFolder(run if is_step else path)
    count = folder.pull(step=int(step) if is_step else None)
    local = folder.local / "checkpoints" / step if is_step else folder.local
    if not local.exists():
        raise DataError(f"there is nothing at {path}.")
    if check and count:
        check(local)
    return str(local)


@contextmanager
def mirrored_run(url: str, *, retry_seconds: float) -> Iterator[Path]:
    """The copy on this machine of a run directory in a bucket, uploaded every few seconds and at the end of the block.

    Where the bucket holds later checkpoints than the copy, they are fetched first. Failed uploads are told on stderr and tried
    again; at the end for `retry_seconds`, after which StorageError is raised.
    """
    folder = BucketFolder(url)
    remote = folder.remote_files()
    if not folder.is_ahead(remote):
        folder.pull(newest=2)  # the one before the newest, too, should that be damaged
    make_folder(folder.local)
    ended = threading.Event()

    def upload() -> None:
        failed = False
        while not ended.wait(_SECONDS_BETWEEN_UPLOADS):
            failed = _tried_to_push(folder, failed=failed)

    uploading = threading.Thread(target=upload, name="upload", daemon=True)
    uploading.start()

    def finish() -> None:
        ended.set()
        uploading.join()
        push_for_good(folder, retry_seconds=retry_seconds)

    with done_before_end(finish):
        try:
            yield folder.local
        finally:
            finish()


def push_for_good(folder: BucketFolder, *, retry_seconds: float) -> None:
    """Upload, trying again for `retry_seconds` where the bucket fails; then raises StorageError."""
    give_up, pause = time.monotonic() + retry_seconds, 1.0
    while True:
        try:
            folder.push()
            return
        except StorageError as error:
            if time.monotonic() >= give_up:
                raise StorageError(f"{str(error).rstrip('.')}; the copy {folder.local} holds everything, and the same command on "
                                   "this machine goes on from there.", error.reason) from None
            print(f"{error} Trying again in {pause:.0f} s.", file=sys.stderr)
        time.sleep(min(pause, max(give_up - time.monotonic(), 0.1)))
        pause = min(2 * pause, 60.0)


def _tried_to_push(folder: BucketFolder, *, failed: bool) -> bool:
    """Upload what is new; returns whether that failed, and says so where it did not before."""
    try:
        folder.push()
    except StorageError as error:
        if not failed:
            print(f"{error} The copy {folder.local} goes on, and the upload is tried again.", file=sys.stderr)
        return True
    if failed:
        print(f"{folder.url} takes files again.", file=sys.stderr)
    return False


def complete_steps(names: Any) -> set[int]:
    """The steps of a run whose last file is among these names."""
    return {step for name in names if (step := _step_of(name)) is not None and Path(name).name == _LAST_FILE
            and name.count("/") == 2}


def _step_of(name: str) -> int | None:
    found = _STEP.match(name)
    return int(found[1]) if found else None


def _stat(file: Path) -> list[int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def _tag(info: dict[str, Any]) -> str:
    """What changes where a file of a bucket is written anew."""
    return str(info.get("ETag") or info.get("etag") or info.get("generation") or info.get("LastModified") or info.get("size"))


def _filesystem(scheme: str) -> Any:
    try:
        import fsspec

        return fsspec.filesystem(scheme, use_listings_cache=False)
    except ImportError:
        raise ConfigError(f"{scheme}:// needs the extra `remote` ({_DRIVERS[scheme]} is missing): pip install "
                          "llama_jax[remote].") from None
    except Exception as error:
        raise StorageError(f"cannot use {scheme}://: {reason_of(error)}.", reason_of(error)) from None
