"""Runs what README.md and docs/MODULES.md tell people to run, in the order it stands there: .venv/bin/python .ci/readme.py

Every line of README's command blocks and every Python block, in the root of the checkout, after the command marked "run" has
made runs/tiny. The files that the commands are about (corpus/, prompts.jsonl ...) are made here, small. A command runs as
it stands unless EDITS says how it is made smaller, or why it does not run here. The Python blocks of docs/MODULES.md are one
program; what its `print`s print has to be what the comments behind them say.
"""

import json
import lzma
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[1]
EVAL_DATA = ROOT.parent / "shared" / "data" / "eval"

SMALL = """
    --model.vocab_size 512 --model.dim 64 --model.num_heads 4 --model.num_kv_heads 4 --model.head_dim 16 --model.ffn_dim 128
    --model.num_layers 2 --data.sequence_length 64 --training.batch_size 8 --training.accumulation_steps 1
    --training.num_steps 4 --training.heldout_every 4 --optimizer.warmup_steps 1 --checkpoint.every 2"""
"""A 7B config in which everything but its size is as it was."""

FEW_STEPS = "--training.num_steps 60"
SHORT_STUDY = "--seeds 1 --training.num_steps 4 --optimizer.warmup_steps 1 --training.heldout_batches 1"
ABSENT = "not here: "

EDITS = {
    "llama-jax train --config 7b": ABSENT + "it wants the seven sources of Table 1; below, the same config on two",
    "llama-jax train --config tiny --model.num_layers 2 --optimizer.peak_lr=1e-3 --workdir runs/short": FEW_STEPS,
    "llama-jax train --config runs/tiny/config.json --workdir runs/again": FEW_STEPS,
    "llama-jax plan --config 7b --machine h100:8 --compile":
        ABSENT + "the CUDA compiler weighs 4.4 GB; the heavier stage compiles for TPUs",
    "llama-jax tokenizer train --input corpus/ --output tok/ --vocab_size 32000": "--vocab_size 512",
    "llama-jax train --config 7b --data.sources data/wikipedia=0.3 data/books=0.7": SMALL,
    "llama-jax train --config tiny --init_from out/tiny-hf --workdir runs/on": FEW_STEPS,
    "llama-jax eval --checkpoint runs/tiny --tasks common_sense --data_dir data/eval": "--limit 2 --output runs/tiny/evals/700",
    "llama-jax eval --checkpoint runs/tiny/checkpoints/350 --tasks common_sense": "--limit 2 --output runs/tiny/evals/350",
    "llama-jax ablate --config norm": SHORT_STUDY,
    "llama-jax ablate --config norm --report": SHORT_STUDY,
    "llama-jax eval --checkpoint runs/tiny --tasks paper": "--limit 1 --num_samples 1 --max_tokens 8",
    "llama-jax train --config tiny --eval.tasks common_sense --eval.every 350 --workdir runs/watched":
        f"{FEW_STEPS} --eval.limit 2 --eval.every 30",
    "python -m llama_jax.evaluation.lm_eval --model llama_jax --model_args checkpoint=runs/tiny --tasks hellaswag":
        ABSENT + "it downloads the task's data; tests/peers/test_lm_eval.py runs it on local files",
}
"""A command of README.md -> what is appended to make it small, or why it does not run here. A stale entry is an error."""


def commands(text: str) -> list[tuple[str, str]]:
    """(kind, code) of all blocks: "command" a line, "python" a block; blocks marked for .ci/run itself are left out."""
    found = []
    for marker, language, body in re.findall(r"(<!-- \w+ -->\n)?```(\w*)\n(.*?)```", text, re.S):
        if marker:
            continue
        if language == "python":
            found.append(("python", body))
        else:
            found += [("command", line.split("  #")[0].strip()) for line in body.splitlines() if line.strip()]
    return found


def program(text: str) -> tuple[str, list[str]]:
    """All Python blocks of a page as one program, and what it prints as the comments behind its `print`s say."""
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.S))
    return code, re.findall(r"^print\(.*\)  # (.*)$", code, re.M)


def make_inputs() -> None:
    """The files that README's commands take for granted."""
    play = lzma.decompress((ROOT / "llama_jax" / "data" / "tinyshakespeare.txt.xz").read_bytes()).decode()
    for number, name in enumerate(("wikipedia", "books", "heldout")):
        folder = ROOT / "corpus" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "play.txt").write_text(play[number * 200_000:(number + 1) * 200_000])
    (ROOT / "raw" / "books").mkdir(parents=True, exist_ok=True)
    (ROOT / "raw" / "books" / "play.txt").write_text(
        f"The Project Gutenberg eBook\n\n*** START OF THE PROJECT GUTENBERG EBOOK PLAY ***\n{play[:200_000]}\n"
        "*** END OF THE PROJECT GUTENBERG EBOOK PLAY ***\n")
    (ROOT / "prompts.jsonl").write_text("".join(json.dumps({"prompt": p}) + "\n" for p in ("ROMEO:", "JULIET:")))
    pair = {"context": "My kingdom for a", "continuation": " horse"}
    (ROOT / "pairs.jsonl").write_text(json.dumps(pair) + "\n")
    if EVAL_DATA.is_dir():
        (ROOT / "data").mkdir(exist_ok=True)
        (ROOT / "data" / "eval").symlink_to(EVAL_DATA)


def run(kind: str, code: str) -> None:
    """One command or block; ends the script where it fails."""
    addition = EDITS.get(code, "")
    if re.search(r"\beval\b", code) and "--help" not in code and not EVAL_DATA.is_dir():
        addition = ABSENT + "the official files of ../shared/data/eval are not there"
    if addition.startswith(ABSENT):
        print(f"   {addition}")
        return
    bin = ROOT / ".venv" / "bin"
    words = [str(bin / "python"), "-c", code] if kind == "python" else shlex.split(f"{code} {addition}")
    if kind == "command":
        words[0] = str(bin / words[0])
    if "serve" in words:
        return serve(words)
    done = subprocess.run(words, cwd=ROOT, text=True, capture_output=True, timeout=600, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout}\n{done.stderr}\nexit code {done.returncode}: {shlex.join(words)}")


def serve(words: list[str]) -> None:
    """Start the server, ask it for a completion, and stop it as a user would."""
    server = subprocess.Popen(words, cwd=ROOT)
    try:
        request = urllib.request.Request("http://127.0.0.1:8000/v1/completions", headers={"Content-Type": "application/json"},
                                         data=json.dumps({"model": "tiny", "prompt": "ROMEO:", "max_tokens": 8}).encode())
        for _ in range(120):
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    print(f"   {json.load(answer)['choices'][0]['text']!r}")
                break
            except urllib.error.HTTPError as error:
                sys.exit(f"{error}: {error.read().decode()}")
            except (urllib.error.URLError, ConnectionError):  # it is still starting
                time.sleep(1)
        else:
            sys.exit("the server did not answer within two minutes")
        server.send_signal(signal.SIGINT)
        if server.wait(30):
            sys.exit(f"the server ended with {server.returncode}")
    finally:
        server.kill()


def main() -> None:
    """All blocks in order."""
    make_inputs()
    blocks = commands((ROOT / "README.md").read_text())
    if stale := EDITS.keys() - {code for _, code in blocks}:
        sys.exit(f"README.md has no such command (any more): {sorted(stale)}")
    for kind, code in blocks:
        begin = time.perf_counter()
        print(f"-- {code.splitlines()[0] if kind == 'command' else 'python: ' + code.splitlines()[2]}", flush=True)
        run(kind, code)
        print(f"   {time.perf_counter() - begin:.0f} s", flush=True)
    code, promised = program((ROOT / "docs" / "MODULES.md").read_text())
    print(f"-- docs/MODULES.md: {len(promised)} values are promised", flush=True)
    done = subprocess.run([ROOT / ".venv" / "bin" / "python", "-c", code], cwd=ROOT, text=True, capture_output=True, check=False)
    if done.returncode or done.stdout.splitlines() != promised:
        sys.exit(f"{done.stdout}\n{done.stderr}\nexit code {done.returncode}; promised were\n" + "\n".join(promised))


if __name__ == "__main__":
    main()
