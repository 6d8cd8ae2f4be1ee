"""What the README's first command promises: python .ci/check_tiny.py RUN."""

import json
import sys
from pathlib import Path

run = Path(sys.argv[1])
for name in ("config.json", "tokenizer.model", "metrics.jsonl", "loss.png", "samples.txt", "tensorboard", "checkpoints"):
    assert (run / name).exists(), f"{run} lacks {name}"
lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
bits = [line["heldout_bits_per_byte"] for line in lines if "heldout_bits_per_byte" in line][-1]
assert bits <= 2.40, f"held-out text costs {bits:.3f} bits per byte, more than 2.40"
print(f"held-out {bits:.3f} bits per byte after {[line['seconds'] for line in lines if 'seconds' in line][-1]:.0f} s")
