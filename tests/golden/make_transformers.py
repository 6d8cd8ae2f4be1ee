"""Makes transformers.npz: logits and a 50-step AdamW loss curve of transformers' LlamaForCausalLM in float32.

    python -m tests.golden.make_transformers          (needs torch and transformers)
"""

import math
from pathlib import Path

import numpy as np

from tests.golden.small import BATCH, CONFIGS, LENGTH, PEAK_LR, STEPS, WARMUP, random_params, random_rows

FILE = Path(__file__).with_name("transformers.npz")


def hf_model(config, params):
    """A LlamaForCausalLM with our parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=config.vocab_size, hidden_size=config.dim, intermediate_size=config.ffn_dim,
        num_hidden_layers=config.num_layers, num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads, max_position_embeddings=config.max_length,
        rms_norm_eps=config.norm_eps, rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        tie_word_embeddings=False, attn_implementation="eager",
    ))
    state = {"model.embed_tokens.weight": params["embedding"], "model.norm.weight": params["final_norm"]["scale"],
             "lm_head.weight": params["head"].T}
    for i in range(config.num_layers):
        layer = {
            "input_layernorm": params["layers"]["attention_norm"]["scale"][i],
            "post_attention_layernorm": params["layers"]["feedforward_norm"]["scale"][i],
        }
        attention, feedforward = params["layers"]["attention"], params["layers"]["feedforward"]
        for ours, theirs in (("wq", "q_proj"), ("wk", "k_proj"), ("wv", "v_proj")):
            layer[f"self_attn.{theirs}"] = attention[ours][i].reshape(config.dim, -1).T
        layer["self_attn.o_proj"] = attention["wo"][i].reshape(-1, config.dim).T
        for ours, theirs in (("w_gate", "gate_proj"), ("w_up", "up_proj"), ("w_down", "down_proj")):
            layer[f"mlp.{theirs}"] = feedforward[ours][i].T
        state |= {f"model.layers.{i}.{name}.weight": value for name, value in layer.items()}
    model.load_state_dict({name: torch.tensor(np.ascontiguousarray(value)) for name, value in state.items()})
    return model


def hf_logits(config, params, tokens):
    """float32 logits (B, T, V)."""
    import torch

    with torch.no_grad():
        return hf_model(config, params)(torch.tensor(tokens, dtype=torch.long)).logits.numpy()


def learning_rate(update: int) -> float:
    """The paper's schedule, written out once more: update 1 is the first, update WARMUP at the peak, STEPS at a tenth."""
    if update < WARMUP:
        return PEAK_LR * update / WARMUP
    progress = (update - WARMUP) / (STEPS - WARMUP)
    return PEAK_LR * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress)))


def hf_losses(config, params) -> np.ndarray:
    """Losses of STEPS steps: AdamW 0.9/0.95, decay 0.1 on matrices but not embeddings and norms, clipping at 1."""
    import torch

    model = hf_model(config, params)
    plain = [p for n, p in model.named_parameters() if "norm" in n or "embed" in n]
    matrices = [p for n, p in model.named_parameters() if "norm" not in n and "embed" not in n]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
                                  betas=(0.9, 0.95), eps=1e-8)
    losses = []
    for step in range(STEPS):
        rows = torch.tensor(random_rows(config, 1000 + step), dtype=torch.long)
        logits = model(rows[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step + 1)
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses, np.float32)


def main() -> None:
    """Compute and write the file."""
    values = {}
    for name, config in CONFIGS.items():
        params = random_params(config, 0)
        values[f"{name}_logits"] = hf_logits(config, params, random_rows(config, 1, BATCH, LENGTH)[:, :-1])
        values[f"{name}_losses"] = hf_losses(config, params)
    np.savez_compressed(FILE, **values)


if __name__ == "__main__":
    main()
