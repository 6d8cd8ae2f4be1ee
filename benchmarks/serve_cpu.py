"""Throughput of the server: sixteen clients at a time beside one at a time, over HTTP.

    python benchmarks/serve_cpu.py [--requests 32] [--rounds 3] [--json FILE]                      (needs the extra serve)

`python -m llama_jax serve` on random weights of shape S (with 2,048 pieces, the most that suits the embedded text), in
float32; every request has a prompt of its own and asks for 64 tokens. A ratio is the median over rounds of tokens/s at 16
clients divided by tokens/s at one.
"""

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from importlib import resources
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import httpx
import jax.numpy as jnp

from llama_jax.config import CheckpointConfig, Config, DataConfig
from llama_jax.data.sources import read_documents
from llama_jax.formats.checkpoints import Checkpoints
from llama_jax.tokenizer.training import train_sentencepiece
from tests.golden.shapes import SHAPES
from tests.golden.small import random_params

ROOT = Path(__file__).resolve().parent.parent
TOKENS, VOCAB, CLIENTS = 64, 2048, 16


def make_run(folder: Path) -> None:
    """A run directory with random weights and a tokenizer."""
    model = replace(SHAPES["S"], vocab_size=VOCAB)
    checkpoints = Checkpoints(folder / "checkpoints", CheckpointConfig())
    config = Config(name="S", model=model, data=DataConfig(sequence_length=model.max_length))
    checkpoints.save(1, {"params": random_params(model, 0), "step": jnp.int32(1)}, config=config)
    checkpoints.close()
    text = next(read_documents(Path(str(resources.files("llama_jax.data") / "tinyshakespeare.txt.xz"))))
    train_sentencepiece([text], VOCAB).save(folder)


@contextmanager
def serving(folder: Path):
    """The server's address, while it runs."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "llama_jax", "serve", "--checkpoint", folder, "--port", str(port), "--slots", str(CLIENTS)]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        server.stdout.readline()  # it says where it listens
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def tokens_per_second(url: str, clients: int, requests: int) -> float:
    """Completed tokens over the time from the first request to the last answer."""
    def ask(number: int) -> int:
        body = {"model": "S", "prompt": f"Scene {number}. Enter the king", "max_tokens": TOKENS, "seed": number}
        return client.post(f"{url}/v1/completions", json=body).raise_for_status().json()["usage"]["completion_tokens"]

    with httpx.Client(timeout=600) as client, ThreadPoolExecutor(clients) as pool:
        begin = time.perf_counter()
        made = sum(pool.map(ask, range(requests)))
        return made / (time.perf_counter() - begin)


def main() -> None:
    """Print the table, then the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        make_run(Path(folder) / "S")
        with serving(Path(folder) / "S") as url:
            while True:
                try:
                    tokens_per_second(url, CLIENTS, CLIENTS)  # compiles
                    break
                except httpx.ConnectError:
                    time.sleep(0.2)
            for _ in range(arguments.rounds):
                one = tokens_per_second(url, 1, max(1, arguments.requests // 4))
                rows.append({"one": one, "many": tokens_per_second(url, CLIENTS, arguments.requests)})
    ratio = statistics.median(row["many"] / row["one"] for row in rows)
    print(f"{'clients':>8s} {'tokens/s':>9s}")
    for name, clients in (("one", 1), ("many", CLIENTS)):
        print(f"{clients:8d} {statistics.median(row[name] for row in rows):9.0f}")
    print(f"ratio serve-S-float32-16-clients: {ratio:.2f} (ours / ours with one client, median of {arguments.rounds})")
    if arguments.json:
        report = {"date": time.strftime("%Y-%m-%d"), "cpu": platform.processor() or platform.machine(), "rows": rows}
        Path(arguments.json).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
