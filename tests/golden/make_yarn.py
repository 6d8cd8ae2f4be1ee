"""Makes yarn.json: rotary frequencies and the factor of both tables under yarn, by transformers' ROPE_INIT_FUNCTIONS.

    python -m tests.golden.make_yarn          (needs torch and transformers)
"""

import json
from pathlib import Path

FILE = Path(__file__).with_name("yarn.json")
CASES = {
    "llama2 to 64k": {"head_dim": 128, "theta": 10_000.0, "factor": 16.0, "original_length": 4096},
    "llama3 to 32k": {"head_dim": 128, "theta": 500_000.0, "factor": 4.0, "original_length": 8192},
    "narrow": {"head_dim": 16, "theta": 10_000.0, "factor": 2.0, "original_length": 2048},
    "other betas": {"head_dim": 64, "theta": 10_000.0, "factor": 8.0, "original_length": 2048, "beta_fast": 16.0,
                    "beta_slow": 2.5},
    "near betas": {"head_dim": 64, "theta": 10_000.0, "factor": 8.0, "original_length": 2048, "beta_fast": 4.0,
                   "beta_slow": 3.9},
    "short": {"head_dim": 32, "theta": 10_000.0, "factor": 4.0, "original_length": 64},  # no pair turns 32 times
    "low theta": {"head_dim": 32, "theta": 100.0, "factor": 4.0, "original_length": 2048},  # all pairs turn more than once
    "kept": {"head_dim": 32, "theta": 10_000.0, "factor": 1.0, "original_length": 2048},
}
"""The fields of `rope_tables`; beta_fast is 32 and beta_slow 1 where they are not given."""
BETAS = {"beta_fast": 32.0, "beta_slow": 1.0}


def yarn(case: dict) -> dict:
    """{"frequencies": head_dim / 2 of them, "magnitude": the factor of cosines and sines}."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    c = BETAS | case
    parameters = {"rope_type": "yarn", "rope_theta": c["theta"], "factor": c["factor"], "beta_fast": c["beta_fast"],
                  "beta_slow": c["beta_slow"], "original_max_position_embeddings": c["original_length"]}
    config = LlamaConfig(hidden_size=4 * c["head_dim"], num_attention_heads=4, rope_parameters=parameters,
                         max_position_embeddings=int(c["factor"] * c["original_length"]))
    frequencies, magnitude = ROPE_INIT_FUNCTIONS["yarn"](config, device="cpu")
    return {"frequencies": frequencies.tolist(), "magnitude": magnitude}


if __name__ == "__main__":
    FILE.write_text(json.dumps({name: yarn(case) for name, case in CASES.items()}, indent=1) + "\n")
