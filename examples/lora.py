"""LoRA (Hu et al. 2022) on any checkpoint: W + (alpha / r) A B for chosen matrices, where only A and B are trained.

The model does not know of it: the adapted matrices are computed from frozen parameters and adapters, and `model.apply` takes the
result. `model.tree.parameters` names every parameter, and says which are matrices and how many of their axes are inputs, so that
one product A B serves queries (D, N, H), the output projection (N, H, D) and a head (D, V) alike, all layers at once.

Here a model of Tiny Shakespeare learns to shout: to write the play in capitals.

    python examples/lora.py --checkpoint runs/tiny [--matrices "wq|wv"] [--rank 8]

prints

    81,920 of 1,115,264 parameters are trained (7.3%), of 7 matrices:
    attention.wk, attention.wo, attention.wq, attention.wv, feedforward.w_down, feedforward.w_gate, feedforward.w_up
    step   0  loss 6.535 nats per token
    step  50  loss 3.002 nats per token
    step 100  loss 3.014 nats per token
    before: "Here, came to me, if thou wilt,\\nSince that I charge it, I am a wail'd\\nTo see my court"
    after: 'THE FOR THEY FIR MERSE:\\nTHE BUT BEANDS; THEY GRON BE'
"""

import argparse
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

import llama_jax
from llama_jax.data import find_text_files, read_documents
from llama_jax.model.tree import parameters

ROWS, T, STEPS, ALPHA = 16, 64, 100, 16.0


def init_adapters(key, config, *, matrices, rank):
    """{name: (A, B)} of every matrix whose name matches, stacked over layers; A is random and B zero, so that nothing changes."""
    adapters = {}
    for name, leaf in parameters(config).items():
        if leaf.is_matrix and re.search(matrices, name):
            key, own = jax.random.split(key)
            layers, shape = leaf.shape[: int(leaf.stacked)], leaf.of_layer.shape
            inputs, outputs = math.prod(shape[: leaf.inputs]), math.prod(shape[leaf.inputs:])
            adapters[name] = (jax.random.normal(own, (*layers, inputs, rank)) / inputs**0.5, jnp.zeros((*layers, rank, outputs)))
    return adapters


def adapted(params, adapters):
    """The parameters with the adapters' products added to their matrices."""
    flat = flatten_dict(params, sep=".")
    for name, (A, B) in adapters.items():
        flat[name] += ALPHA / A.shape[-1] * (A @ B).reshape(flat[name].shape)
    return unflatten_dict(flat, sep=".")


def main(checkpoint, matrices, rank):
    model, params, tokenizer = llama_jax.load(checkpoint)
    [play] = read_documents(*find_text_files("embedded:tinyshakespeare"))
    ids, rng = tokenizer.encode_array(play[:200_000].upper()), np.random.default_rng(0)
    adapters = init_adapters(jax.random.key(0), model.config, matrices=matrices, rank=rank)
    total, own = (sum(x.size for x in jax.tree.leaves(tree)) for tree in (params, adapters))
    print(f"{own:,} of {total:,} parameters are trained ({own / total:.1%}), of {len(adapters)} matrices:")
    print(", ".join(name.removeprefix("layers.") for name in adapters))

    def loss(adapters, rows):
        logits_BTV = model.apply({"params": adapted(params, adapters)}, rows[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits_BTV, rows[:, 1:]).mean()

    optimizer = optax.adam(1e-2)

    @jax.jit
    def step(adapters, state, rows):
        value, gradients = jax.value_and_grad(loss)(adapters, rows)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(adapters, updates), state, value

    state = optimizer.init(adapters)
    for n in range(STEPS + 1):
        rows = ids[rng.integers(len(ids) - T, size=(ROWS, 1)) + np.arange(T + 1)]
        adapters, state, value = step(adapters, state, rows)
        if n % 50 == 0:
            print(f"step {n:3}  loss {value:.3f} nats per token")

    for name, tree in {"before": params, "after": adapted(params, adapters)}.items():
        [text] = llama_jax.generate(model, tree, tokenizer, ["ROMEO:\n"], llama_jax.Sampling(temperature=0.5, max_new_tokens=40))
        print(f"{name}: {text.text!r}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="a run, a Hugging Face folder or a Meta folder")
    parser.add_argument("--matrices", default="attention|feedforward", help="regular expression of the matrices' names")
    parser.add_argument("--rank", type=int, default=8)
    main(**vars(parser.parse_args()))
