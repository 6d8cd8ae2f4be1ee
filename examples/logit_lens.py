"""What a checkpoint would say after each block (the logit lens, nostalgebraist 2020), and where its heads look.

`capture` returns the residual stream between all blocks and the attention weights of all heads, stacked over layers. The lens
reads every residual stream as if it were the last, through the final norm and the output head: logit_lens.png has a row per layer
and a column per token, with the likeliest next token in each cell. attention.png has a map of weights per layer and head.

    python examples/logit_lens.py --checkpoint runs/tiny [--prompt TEXT]

prints

    embedding   6.407 nats per token of the prompt
    layer 1     4.366 nats per token of the prompt
    layer 2     4.020 nats per token of the prompt
    layer 3     3.581 nats per token of the prompt
    layer 4     3.039 nats per token of the prompt
    the last layer's logits differ from the model's by at most 9e-06
"""

import argparse

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import llama_jax
from llama_jax.model import head_matrix, make_norm

PROMPT = "First Citizen:\nBefore we proceed any further, hear me speak."


def lens(model, params, tokens_BT):
    """Logits after embedding and blocks (L + 1, T, V), attention weights (L, N, T, T), and the model's own logits (T, V)."""
    logits_BTV, inside = llama_jax.capture(model, params, tokens_BT, ["resid_pre", "resid_post", "attn_weights"])
    h_LTD = jnp.concatenate([inside["resid_pre"][:1, 0], inside["resid_post"][:, 0]])
    if "final_norm" in params:  # a model with norms after its layers needs no other
        h_LTD = make_norm(model.config).apply({"params": params["final_norm"]}, h_LTD)
    logits_LTV = jnp.einsum("LTD,DV->LTV", h_LTD, head_matrix(params), preferred_element_type=jnp.float32)
    return logits_LTV, inside["attn_weights"][:, 0], logits_BTV[0]


def plot_lens(logits_LTV, tokens_T, piece, names):
    """One cell per layer and token: the likeliest next token, on its probability as a colour; bold where it does come next."""
    best_LT, chance_LT = np.asarray(logits_LTV.argmax(-1)), np.asarray(jax.nn.softmax(logits_LTV).max(-1))
    figure, axes = plt.subplots(figsize=(1.6 + 0.62 * len(tokens_T), 1.6 + 0.36 * len(names)), dpi=130, layout="constrained")
    image = axes.imshow(chance_LT, vmin=0, vmax=1, cmap="viridis", aspect="auto", origin="lower")
    for (n, t), chance in np.ndenumerate(chance_LT):
        right = best_LT[n, t] in tokens_T[t + 1 : t + 2]
        axes.text(t, n, piece(best_LT[n, t]), ha="center", va="center", fontsize=8, weight="bold" if right else "normal",
                  color="black" if chance > 0.6 else "white")
    axes.set_yticks(range(len(names)), names)
    axes.set_xticks(range(len(tokens_T)), map(piece, tokens_T), rotation=60, ha="right", rotation_mode="anchor")
    axes.set(xlabel="token read", title="likeliest next token, were the model to end here (bold: it does come next)")
    figure.colorbar(image, label="its probability", pad=0.01)
    figure.savefig("logit_lens.png")


def plot_attention(weights_LNTT, pieces):
    """One map per layer and head: the row is the token that looks, the column the token that it looks at."""
    L, N, T, _ = weights_LNTT.shape
    figure, grid = plt.subplots(N, L, figsize=(1 + L * (0.5 + 0.13 * T), 1 + N * (0.5 + 0.13 * T)), dpi=130, squeeze=False,
                                sharex=True, sharey=True, layout="constrained")
    for (head, n), axes in np.ndenumerate(grid):
        image = axes.imshow(weights_LNTT[n, head], vmin=0, vmax=1, cmap="Blues")
        axes.set_title(f"layer {n + 1}, head {head + 1}", fontsize=9)
        axes.set_xticks(range(T), pieces, rotation=90, fontsize=7)
        axes.set_yticks(range(T), pieces, fontsize=7)
    figure.supylabel("from")
    figure.supxlabel("to")
    figure.colorbar(image, ax=grid, label="attention weight", shrink=0.6, pad=0.01)
    figure.savefig("attention.png")


def main(checkpoint, prompt):
    model, params, tokenizer = llama_jax.load(checkpoint)

    def piece(token):
        return tokenizer.piece(int(token)).removeprefix("bytes:").replace("\n", "\\n").replace(" ", "_").replace("$", r"\$")

    tokens_BT = np.array([[*tokenizer.begin, *tokenizer.encode(prompt)]])
    logits_LTV, weights_LNTT, logits_TV = lens(model, params, tokens_BT)
    names = ["embedding", *(f"layer {n + 1}" for n in range(model.config.num_layers))]
    log_chance_LTV = jax.nn.log_softmax(logits_LTV)
    for name, log_chance_TV in zip(names, log_chance_LTV, strict=True):
        right_T = jnp.take_along_axis(log_chance_TV[:-1], tokens_BT[0, 1:, None], axis=-1)
        print(f"{name:9}  {-right_T.mean():6.3f} nats per token of the prompt")
    print(f"the last layer's logits differ from the model's by at most {jnp.abs(logits_LTV[-1] - logits_TV).max():.0e}")
    plot_lens(logits_LTV, tokens_BT[0], piece, names)
    plot_attention(weights_LNTT, [piece(token) for token in tokens_BT[0]])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="a run, a Hugging Face folder or a Meta folder")
    parser.add_argument("--prompt", default=PROMPT)
    main(**vars(parser.parse_args()))
