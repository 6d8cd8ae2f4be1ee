"""Folders in buckets: what is in step and in which order, on a file system in memory; whole runs against an S3 server below."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from llama_jax.cli.buckets import local_options
from llama_jax.cli.options import ScoreOptions
from llama_jax.config import to_dict
from llama_jax.errors import ConfigError, DataError, StorageError
from llama_jax.files import remote
from llama_jax.files.remote import BucketFolder, complete_steps, fetched, is_remote, mirrored_run, push_for_good
from llama_jax.formats.mapping import tensors
from llama_jax.formats.open import open_source
from llama_jax.tokenizer.training import train_sentencepiece
from tests.training.test_loop import small_config

ROOT = Path(__file__).parents[2]


class Bucket(MemoryFileSystem):
    """Counts what is written, in order, and fails where it is told to."""

    store, pseudo_dirs = {}, [""]
    written: list[str] = []
    broken = ""

    def info(self, path, **options):
        found = super().info(path, **options)
        return found | ({"ETag": found["created"].isoformat()} if found["type"] == "file" else {})

    def find(self, path, **options):
        self.fail_if("find")
        return {name.lstrip("/"): self.info(name) for name in super().find(path)}

    def fail_if(self, operation):
        if operation in self.broken:
            raise TimeoutError("the bucket does not answer.")

    def pipe_file(self, path, value, **options):
        self.fail_if("pipe")
        super().pipe_file(path, value, **options)
        self.written.append(path)

    def rm_file(self, path):
        self.fail_if("rm")
        super().rm_file(path)
        self.written.append(f"-{path}")


@pytest.fixture
def bucket(monkeypatch, tmp_path) -> Bucket:
    monkeypatch.setenv(remote.SCRATCH_VARIABLE, str(tmp_path / "here"))
    monkeypatch.setattr(Bucket, "store", {})
    monkeypatch.setattr(Bucket, "written", [])
    filesystem = Bucket(skip_instance_cache=True)
    monkeypatch.setattr(remote, "_filesystem", lambda scheme: filesystem)
    return filesystem


def elsewhere(monkeypatch, tmp_path) -> None:
    """Go to another machine, whose copies are empty."""
    monkeypatch.setenv(remote.SCRATCH_VARIABLE, str(tmp_path / "there"))


def put(folder: Path, *names: str, text: str = "x") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def step(number: int) -> list[str]:
    return [f"checkpoints/{number}/{name}" for name in ("_CHECKPOINT_METADATA", "state/manifest.ocdbt", "config/metadata")]


def test_names():
    assert is_remote("s3://b/x") and is_remote("gs://b")
    assert not any(map(is_remote, ("s3", "/s3://x", "hf://datasets/x", "a/b", "")))
    assert complete_steps([*step(4), *step(12)[1:], "checkpoints/x/_CHECKPOINT_METADATA"]) == {4}
    assert complete_steps(["checkpoints/7/state/_CHECKPOINT_METADATA"]) == set()


def test_what_is_new_is_uploaded_once_and_what_is_gone_is_removed(bucket):
    folder = BucketFolder("s3://b/run/")
    put(folder.local, "config.json", "metrics.jsonl", "a.tmp", "writer.lock", "checkpoints/3.orbax-checkpoint-tmp/state/x")
    put(folder.local, *step(2))
    folder.push()
    assert bucket.written[:2] == ["b/run/config.json", "b/run/metrics.jsonl"]  # no checkpoint without the metrics of its steps
    assert bucket.written[-1] == "b/run/checkpoints/2/_CHECKPOINT_METADATA" and len(bucket.written) == 5
    folder.push()
    assert len(bucket.written) == 5
    put(folder.local, "metrics.jsonl", text="xy")
    put(folder.local, *step(4))
    shutil.rmtree(folder.local / "checkpoints/2")
    BucketFolder("s3://b/run").push()  # another process knows what was uploaded
    assert bucket.written[5] == "b/run/metrics.jsonl" and bucket.written[8] == "b/run/checkpoints/4/_CHECKPOINT_METADATA"
    assert bucket.written[9] == "-b/run/checkpoints/2/_CHECKPOINT_METADATA" and len(bucket.written) == 12
    assert set(folder.remote_files()) == {"config.json", "metrics.jsonl", *step(4)}


def test_another_machine_fetches_the_newest_complete_checkpoints(bucket, monkeypatch, tmp_path):
    folder = BucketFolder("s3://b/run")
    put(folder.local, "config.json", *step(2), *step(4), *step(6), *step(8)[1:])
    folder.push()
    elsewhere(monkeypatch, tmp_path)
    with mirrored_run("s3://b/run", retry_seconds=0) as local:
        assert sorted(os.listdir(local / "checkpoints")) == ["4", "6"] and local.is_relative_to(tmp_path / "there")
        put(local, *step(10))
    assert complete_steps(BucketFolder("s3://b/run").remote_files()) == {2, 4, 6, 10}, "nothing that was not fetched is removed"
    monkeypatch.setenv(remote.SCRATCH_VARIABLE, str(tmp_path / "third"))
    assert sorted(os.listdir(Path(fetched("s3://b/run")) / "checkpoints")) == ["10"]
    assert Path(fetched("s3://b/run/checkpoints/4")).name == "4"
    assert sorted(os.listdir(Path(fetched("s3://b/run")) / "checkpoints")) == ["10", "4"]


def test_a_copy_that_is_ahead_goes_on_and_one_that_is_behind_is_brought_up(bucket, monkeypatch, tmp_path):
    folder = BucketFolder("s3://b/run")
    put(folder.local, "metrics.jsonl", *step(2), text="2")
    folder.push()
    put(folder.local, "metrics.jsonl", *step(4), text="4")  # killed before it was uploaded
    with mirrored_run("s3://b/run", retry_seconds=0) as local:
        assert (local / "metrics.jsonl").read_text() == "4"
    assert complete_steps(folder.remote_files()) == {2, 4}
    elsewhere(monkeypatch, tmp_path)
    with mirrored_run("s3://b/run", retry_seconds=0) as local:
        put(local, "metrics.jsonl", *step(6), text="6")
    monkeypatch.setenv(remote.SCRATCH_VARIABLE, str(tmp_path / "here"))
    with mirrored_run("s3://b/run", retry_seconds=0) as local:
        assert (local / "metrics.jsonl").read_text() == "6" and (local / "checkpoints/6").is_dir()


def test_an_emptied_bucket_does_not_bring_an_old_run_back(bucket):
    folder = BucketFolder("s3://b/run")
    put(folder.local, *step(2))
    folder.push()
    for name in step(2):
        bucket.rm_file(f"b/run/{name}")
    with pytest.raises(ConfigError, match=r"s3://b/run is empty, and its copy .* holds a run: remove the copy"), \
            mirrored_run("s3://b/run", retry_seconds=0):
        pass
    assert (folder.local / "checkpoints/2").is_dir()


def test_a_bucket_that_fails_is_told_and_tried_again(bucket, monkeypatch, capsys):
    monkeypatch.setattr(remote, "_SECONDS_BETWEEN_UPLOADS", 0.05)
    with mirrored_run("s3://b/run", retry_seconds=5) as local:
        monkeypatch.setattr(Bucket, "broken", "pipe")
        put(local, "config.json")
        time.sleep(0.3)
        monkeypatch.setattr(Bucket, "broken", "")
        time.sleep(0.3)
        assert set(BucketFolder("s3://b/run").remote_files()) == {"config.json"}
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[0].startswith("cannot write s3://b/run: the bucket does not answer. The copy ")
    assert lines[1] == "s3://b/run takes files again."


@pytest.mark.parametrize("operation", ["find", "pipe", "rm"])
def test_a_bucket_that_is_away_ends_in_one_sentence(bucket, monkeypatch, operation, capsys):
    folder = BucketFolder("s3://b/run")
    put(folder.local, "a", "b")
    folder.push()
    monkeypatch.setattr(Bucket, "broken", operation)
    put(folder.local, "a", text="new")
    (folder.local / "b").unlink()
    with pytest.raises(StorageError, match=r"^cannot \w+( a file of)? s3://b/run: the bucket does not answer[.;]") as caught:
        if operation == "find":
            fetched("s3://b/run")
        else:
            push_for_good(folder, retry_seconds=0)
    assert "\n" not in str(caught.value) and (folder.local / "a").read_text() == "new"


def test_options_of_commands(bucket, tmp_path):
    bucket.pipe_file("b/in.jsonl", b"{}\n")
    asked = ScoreOptions(checkpoint="/x", input="s3://b/in.jsonl", output="s3://b/new/out.jsonl")
    with local_options(asked) as local:
        assert Path(local.input).read_text() == "{}\n" and local.checkpoint == "/x"
        put(Path(local.output).parent, "out.jsonl", text="done")
    assert bucket.cat_file("b/new/out.jsonl") == b"done"
    with pytest.raises(DataError, match="there is nothing at s3://b/none"), \
            local_options(ScoreOptions(checkpoint="s3://b/none", input="", output="")):
        pass
    plain = ScoreOptions(checkpoint="/x", input="/y", output="/z")
    with local_options(plain) as local:
        assert local is plain


def test_the_extra_is_named(monkeypatch):
    def missing(*arguments, **options):
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    with pytest.raises(ConfigError, match=r"gs:// needs the extra `remote` \(gcsfs is missing\): pip install llama_jax\[rem"):
        BucketFolder("gs://b/run")
    with pytest.raises(ConfigError, match="names no bucket"):
        BucketFolder("gs://")


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory) -> dict[str, str]:
    """The environment in which s3:// is a server of moto's on this machine, with the bucket `shelf`."""
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1", "JAX_PLATFORMS": "cpu"}
    log = (tmp_path_factory.mktemp("s3") / "log").open("w")
    server = subprocess.Popen([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log)
    make = "import fsspec; fsspec.filesystem('s3').mkdir('shelf')"
    for _ in range(20):
        time.sleep(0.5)
        made = subprocess.run([sys.executable, "-c", make], env=environment, capture_output=True, text=True)
        if made.returncode == 0:
            break
    assert made.returncode == 0, made.stderr
    yield environment
    server.terminate()
    server.wait()
    log.close()


def run(environment: dict, scratch: Path, *command, killed: bool = False) -> subprocess.CompletedProcess:
    """Run a command with an S3 server; `killed`: once it has uploaded a checkpoint."""
    environment = environment | {remote.SCRATCH_VARIABLE: str(scratch)}
    process = subprocess.Popen([sys.executable, *map(str, command)], cwd=ROOT, env=environment, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if killed:
        filesystem = fsspec.filesystem("s3", endpoint_url=environment["AWS_ENDPOINT_URL"], key="x", secret="x",
                                       use_listings_cache=False, skip_instance_cache=True)
        while process.poll() is None:
            if filesystem.glob("shelf/run/checkpoints/*/_CHECKPOINT_METADATA"):
                process.kill()
            time.sleep(0.05)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@pytest.mark.slow
def test_a_run_in_a_bucket_goes_on_bit_for_bit_on_another_machine(tmp_path, s3_server):
    """Data prepared into the bucket, trained from there; killed, resumed with an empty copy, and evaluated by its address."""
    config = to_dict(small_config(tmp_path, num_steps=1_200, heldout_every=0))
    config["eval"]["every"], config["checkpoint"]["every"] = 0, 50
    train_sentencepiece([(tmp_path / "colours.jsonl").read_text()], 288).save(tmp_path / "tokenizer")
    for name in ("colours", "numbers"):
        done = run(s3_server, tmp_path / "first", "-m", "llama_jax", "prepare", "--input", tmp_path / f"{name}.jsonl",
                   "--tokenizer", tmp_path / "tokenizer", "--output", f"s3://shelf/data/{name}", "--workers", 1)
        assert done.returncode == 0 and f"is uploaded to s3://shelf/data/{name}" in done.stderr, done.stderr
    config["data"] |= {"sources": ["s3://shelf/data/colours=0.7", "s3://shelf/data/numbers=0.3"], "heldout_fraction": 0}
    (tmp_path / "c.json").write_text(json.dumps(config))
    command = ("train.py", "--config", tmp_path / "c.json")
    whole = run(s3_server, tmp_path / "first", *command, "--workdir", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    killed = run(s3_server, tmp_path / "second", *command, "--workdir", "s3://shelf/run", killed=True)
    assert killed.returncode == -9, killed.stderr
    resumed = run(s3_server, tmp_path / "third", *command, "--workdir", "s3://shelf/run")
    assert resumed.returncode == 0 and "resuming" in resumed.stdout, resumed.stderr

    def numbers(folder: Path) -> list[dict]:
        lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        return [{name: line[name] for name in ("step", "loss", "grad_norm", "sources") if name in line} for line in lines]

    wanted = numbers(tmp_path / "whole")
    assert numbers(tmp_path / "third/s3/shelf/run") == wanted and wanted[-1]["step"] == 1_200
    seen = run(s3_server, tmp_path / "fourth", "-m", "llama_jax", "inspect", "--checkpoint", "s3://shelf/run")
    assert seen.returncode == 0, seen.stderr
    copied, whole = open_source(tmp_path / "fourth/s3/shelf/run"), open_source(tmp_path / "whole")
    for tensor in tensors(whole.config):
        np.testing.assert_array_equal(copied.read(tensor), whole.read(tensor))
