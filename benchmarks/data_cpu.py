"""Data on a CPU: tokenising beside SentencePiece alone, the loader beside training, memory beside corpus size, cleaning.

    python benchmarks/data_cpu.py [--parts tokenise,load,memory] [--megabytes 96] [--rounds 3] [--json FILE]
    python benchmarks/data_cpu.py --input FILE... --tokenizer FILE                       (other text, and its tokenizer)
    python benchmarks/data_cpu.py --parts clean --raw FOLDER [--raw_megabytes 8]         (FOLDER/KIND: raw data of a source)

tokenise: documents of a JSON lines file into shards, with one worker and with two, and the same documents through
SentencePiece's own `EncodeAsIds` on one core, in turns; a ratio is the median over rounds of our MB/s divided by theirs. Ours
reads, parses and writes files, and with two workers starts two processes. Per second of processor time the ratios also hold on
a busy machine; with two workers, twice that one is what two idle cores would give.
load: tokens/s of the loader on the data of the config `tiny`, and what training of that config consumes.
memory: peak memory of the process that reads and writes, for a quarter of the corpus and for eight times that.
clean: MB/s of raw text, as the reader of a format passes it on, through all stages with one worker, per kind of raw data. Copies
of the data make up --raw_megabytes; what a run with one copy takes is subtracted, so that imports and models do not count.

A part is a function that measures, and one that prints a table and returns ratios; PARTS names both.

Without --input the text is the embedded one, in documents of 2,000 characters, with 2,048 pieces. It is repeated up to
--megabytes.
"""

import argparse
import itertools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from importlib import resources
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from llama_jax.data.prepare import prepare_data
from llama_jax.data.sources import find_text_files, read_documents
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.tokenizer.load import load_tokenizer
from llama_jax.tokenizer.training import train_sentencepiece

ROOT = Path(__file__).resolve().parent.parent
BATCHES = 500
CHARACTERS = 2000
LARGE = 8
MOST_COPIES = 60
PEAK = """
import re, sys
from pathlib import Path
from llama_jax.data.prepare import prepare_data
from llama_jax.tokenizer.load import load_tokenizer
if __name__ == "__main__":
    source, tokenizer, output = sys.argv[1:]
    prepare_data([source], load_tokenizer(tokenizer), output=Path(output), workers=2, shard_tokens=1 << 22)
    print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""
"""Prints the peak memory of the process in KiB; its workers are processes of their own."""


def documents_of(inputs: list[str], megabytes: float) -> list[str]:
    """Documents of the inputs, or parts of the embedded text, repeated up to a size."""
    if inputs:
        texts = [text for file in find_text_files(*inputs) for text in read_documents(file)]
    else:
        play = next(read_documents(Path(str(resources.files("llama_jax.data") / "tinyshakespeare.txt.xz"))))
        texts = [play[at : at + CHARACTERS] for at in range(0, len(play), CHARACTERS)]
    wanted, size, documents = megabytes * 1e6, 0, []
    for text in itertools.cycle(texts):
        if size >= wanted:
            return documents
        documents.append(text)
        size += len(text.encode())


def small_tokenizer() -> Tokenizer:
    """2,048 pieces, the most that suits the embedded text."""
    return train_sentencepiece(documents_of([], 1), 2048)


def write_corpus(file: Path, documents: list[str], times: int = 1) -> None:
    """The documents as JSON lines, several times over."""
    lines = "".join(json.dumps({"text": text}) + "\n" for text in documents)
    with file.open("w") as stream:
        for _ in range(times):
            stream.write(lines)


def tokenise(folder: Path, documents: list[str], rounds: int) -> list[dict]:
    """MB/s of SentencePiece alone, and of `prepare` with one worker and with two, in every round."""
    tokenizer, size = load_tokenizer(folder), sum(len(text.encode()) for text in documents) / 1e6
    write_corpus(folder / "corpus.jsonl", documents)

    def alone() -> None:
        for text in documents:
            tokenizer._processor.EncodeAsIds(text)

    def prepared(workers: int, number: int) -> None:
        prepare_data([str(folder / "corpus.jsonl")], tokenizer, output=folder / f"{number}-{workers}", workers=workers)

    rows = []
    for number in range(rounds):
        took = {"sentencepiece": seconds(alone), "prepare-1": seconds(prepared, 1, number),
                "prepare-2": seconds(prepared, 2, number)}
        rows.append({name: {"wall": size / wall, "cpu": size / cpu} for name, (wall, cpu) in took.items()})
    return rows


def seconds(action, *arguments) -> tuple[float, float]:
    """How long a call takes, and the processor time of it and of the processes that it starts and waits for."""
    begin, before = time.perf_counter(), sum(os.times()[:4])
    action(*arguments)
    return time.perf_counter() - begin, sum(os.times()[:4]) - before


def load(folder: Path, documents: list[str], rounds: int) -> list[dict]:
    """tokens/s that training of `tiny` consumes, and that the loader gives on the same data, in every round."""
    from llama_jax.config import MeshConfig
    from llama_jax.config.file import load_config
    from llama_jax.data.loader import load_batches
    from llama_jax.data.mixture import Mixture
    from llama_jax.data.windows import TokenSource
    from llama_jax.parallel.mesh import make_mesh

    config = load_config(ROOT / "configs" / "tiny.py")
    rows = []
    for number in range(rounds):
        command = [sys.executable, ROOT / "train.py", "--config", "tiny", "--workdir", folder / f"run-{number}",
                   "--training.num_steps", "80", "--training.heldout_every", "80"]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lines = map(json.loads, (folder / f"run-{number}" / "metrics.jsonl").read_text().splitlines())
        trained = statistics.median([line["tokens_per_second"] for line in lines if "tokens_per_second" in line][1:])
        source = TokenSource(folder / f"run-{number}" / "data" / "tinyshakespeare" / "train", config.data.sequence_length)
        mixture, size = Mixture([source], [1.0], seed=0), config.training.batch_size
        begin = time.perf_counter()
        for _ in load_batches(mixture, make_mesh(MeshConfig()), batch_size=size, start=0, stop=BATCHES):
            pass
        tokens = BATCHES * size * config.data.sequence_length
        rows.append({"train": trained, "loader": tokens / (time.perf_counter() - begin)})
    return rows


def memory(folder: Path, documents: list[str], rounds: int) -> list[dict]:
    """Peak memory in MB for a quarter of the documents, and for LARGE times that."""
    rows, documents = [], documents[: len(documents) // 4]
    for times in (1, LARGE):
        source = folder / f"times-{times}.jsonl"
        write_corpus(source, documents, times)
        command = [sys.executable, "-c", PEAK, source, folder, folder / f"memory-{times}"]
        peak = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
        rows.append({"megabytes": source.stat().st_size / 1e6, "peak_megabytes": int(peak) * 1024 / 1e6})
        source.unlink()
    return rows


def show_tokenise(rows: list[dict], rounds: int) -> list[str]:
    """MB/s of each side, then ratios by the clock and by processor time."""
    print(f"{'tokenising':28s} {'MB/s':>8s} {'MB per processor second':>24s}")
    for name in rows[0]:
        wall, cpu = (statistics.median(row[name][clock] for row in rows) for clock in ("wall", "cpu"))
        print(f"{name:28s} {wall:8.2f} {cpu:24.2f}")
    ratios = []
    for clock, word in (("wall", ""), ("cpu", "-processor-time")):
        for workers in (1, 2):
            value = statistics.median(row[f"prepare-{workers}"][clock] / row["sentencepiece"][clock] for row in rows)
            ratios.append(f"prepare-{workers}-workers{word}: {value:.2f} (ours / sentencepiece on one core, median of {rounds})")
    return ratios


def show_load(rows: list[dict], rounds: int) -> list[str]:
    """tokens/s of training and of the loader, then their ratio."""
    print(f"{'config tiny':28s} {'tokens/s':>8s}")
    for name in rows[0]:
        print(f"{name:28s} {statistics.median(row[name] for row in rows):8,.0f}")
    value = statistics.median(row["loader"] / row["train"] for row in rows)
    return [f"loader-tiny: {value:.1f} (loader / training, tokens/s, median of {rounds})"]


def show_memory(rows: list[dict], rounds: int) -> list[str]:
    """Peaks, then the ratio of the larger corpus's to the smaller's."""
    print(f"{'corpus, MB':28s} {'peak MB':>8s}")
    for row in rows:
        print(f"{row['megabytes']:<28.0f} {row['peak_megabytes']:8.0f}")
    value = rows[1]["peak_megabytes"] / rows[0]["peak_megabytes"]
    return [f"prepare-memory: {value:.2f} (peak of a corpus {LARGE} times as large / peak, median of 1)"]


def clean(folder: Path, documents: list[str], rounds: int, *, raw: Path, megabytes: float) -> dict[str, dict[str, float]]:
    """MB of raw text that each kind cleans per second, and per second of processor time."""
    from llama_jax.clean.kinds import KINDS

    rates = {}
    for kind in [kind for kind in KINDS if (raw / kind).is_dir()]:
        size, *once = clean_copies(folder, raw, kind=kind, copies=1)
        copies = max(2, min(round(megabytes / size), MOST_COPIES))
        whole, *often = clean_copies(folder, raw, kind=kind, copies=copies)
        wall, cpu = (max(long - short, 1e-9) for long, short in zip(often, once, strict=True))
        rates[kind] = {"megabytes": whole, "wall": (whole - size) / wall, "cpu": (whole - size) / cpu}
    return rates


def clean_copies(folder: Path, raw: Path, *, kind: str, copies: int) -> tuple[float, float, float]:
    """(MB of raw text, seconds, seconds of processor time) of cleaning copies of the raw data of a kind."""
    from llama_jax.clean.inputs import find_input_files
    from llama_jax.clean.kinds import KINDS, load_recipe
    from llama_jax.clean.report import collect_counts
    from llama_jax.clean.stages import Workplace, run_stages
    from llama_jax.cli.clean_options import CleanOptions

    source, output = folder / f"{kind}-{copies}", folder / f"{kind}-{copies}-out"
    for number in range(copies):
        shutil.copytree(raw / kind, source / f"copy-{number:03d}", copy_function=shutil.copyfile)
    place = Workplace(find_input_files((str(source),), KINDS[kind]), output)
    recipe = load_recipe(kind)(place, CleanOptions(kind, (str(source),), str(output)))
    wall, cpu = seconds(lambda: run_stages(recipe, place, settings={}))
    return collect_counts(output)[0].bytes_in / 1e6, wall, cpu


def show_clean(rates: dict[str, dict[str, float]], rounds: int) -> list[str]:
    """MB/s of each kind."""
    print(f"{'cleaning':16s} {'MB':>6s} {'MB/s':>8s} {'MB per processor second':>24s}")
    for kind, rate in rates.items():
        print(f"{kind:16s} {rate['megabytes']:6.1f} {rate['wall']:8.2f} {rate['cpu']:24.2f}")
    return []


PARTS = {"tokenise": (tokenise, show_tokenise), "load": (load, show_load), "memory": (memory, show_memory)}


def main() -> None:
    """Measure the parts that are asked for, print them, and write them where a file is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--megabytes", type=float, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--input", nargs="+", default=[])
    parser.add_argument("--tokenizer", help="SentencePiece model or its folder")
    parser.add_argument("--raw", type=Path, help="folder with raw data, a folder per kind, for the part clean")
    parser.add_argument("--raw_megabytes", type=float, default=8)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    parts = arguments.parts.split(",")
    known = dict(PARTS)
    if arguments.raw:
        known["clean"] = (partial(clean, raw=arguments.raw, megabytes=arguments.raw_megabytes), show_clean)
    if unknown := set(parts) - set(known):
        parser.error(f"unknown parts {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}, and clean with --raw")
    documents = documents_of(arguments.input, arguments.megabytes)
    results, ratios = {}, []
    for part in parts:
        measure, show = known[part]
        with tempfile.TemporaryDirectory() as name:
            tokenizer = load_tokenizer(arguments.tokenizer) if arguments.tokenizer else small_tokenizer()
            tokenizer.save(name)
            results[part] = measure(Path(name), documents, arguments.rounds)
        ratios += show(results[part], arguments.rounds)
    for ratio in ratios:
        print(f"ratio {ratio}")
    if arguments.json:
        report = {"date": time.strftime("%Y-%m-%d"), "cpu": platform.processor() or platform.machine()} | results
        Path(arguments.json).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
