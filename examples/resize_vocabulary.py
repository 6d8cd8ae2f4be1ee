"""More token ids for a checkpoint: rows of the embedding and columns of the head are added, saved, and loaded again.

Every new vector is the mean of the old ones. A new id's logit is then the mean of all logits, so by Jensen's inequality no new
token takes more than 1 / V of the probability of the V old ones, whose logits stay as they are. `model.tree.parameters` says
which axis of which parameter is the vocabulary. The tokenizer stays too: ids beyond it can be trained, and are never sampled.

    python examples/resize_vocabulary.py --checkpoint runs/tiny --target out/resized [--multiple_of 128]

prints

    embedding (1024, 128) is now (1152, 128)
    head (128, 1024) is now (128, 1152)
    saved out/resized
    logits of the 1024 old ids differ by at most 0e+00
    the likeliest new token has a probability of 0.000012, at most 1 / 1024 = 0.000977
    before: '\\nTherefore, I have been a cause'
    after: '\\nTherefore, I have been a cause'
"""

import argparse
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

import llama_jax
from llama_jax.model.tree import parameters


def resized(model, params, vocab_size):
    """The model and its parameters with more ids, each with the mean vector of the old ones."""
    flat = flatten_dict(params, sep=".")
    for name, leaf in parameters(model.config).items():
        if "vocab" in leaf.axes:
            axis, count = leaf.axes.index("vocab"), vocab_size - model.config.vocab_size
            mean = flat[name].mean(axis, keepdims=True)
            flat[name] = jnp.concatenate([flat[name], *[mean] * count], axis)
            print(f"{name} {leaf.shape} is now {flat[name].shape}")
    return llama_jax.Transformer(replace(model.config, vocab_size=vocab_size), model.compute), unflatten_dict(flat, sep=".")


def main(checkpoint, target, multiple_of):
    model, params, tokenizer = llama_jax.load(checkpoint)
    V = model.config.vocab_size
    llama_jax.save(target, *resized(model, params, (V // multiple_of + 1) * multiple_of), tokenizer)
    print(f"saved {target}")

    larger, larger_params, _ = llama_jax.load(target)
    tokens_BT = np.array([tokenizer.encode("ROMEO:\nBut, soft! what light through yonder window breaks?")])
    old, new = model.apply({"params": params}, tokens_BT), larger.apply({"params": larger_params}, tokens_BT)
    print(f"logits of the {V} old ids differ by at most {jnp.abs(new[..., :V] - old).max():.0e}")
    chance = jax.nn.softmax(new)[..., V:].max()
    print(f"the likeliest new token has a probability of {chance:.6f}, at most 1 / {V} = {1 / V:.6f}")
    greedy = llama_jax.Sampling(temperature=0, max_new_tokens=12)
    for name, of in {"before": (model, params), "after": (larger, larger_params)}.items():
        print(f"{name}: {llama_jax.generate(*of, tokenizer, ['ROMEO:'], greedy)[0].text!r}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="a run, a Hugging Face folder or a Meta folder")
    parser.add_argument("--target", required=True, help="a folder to make")
    parser.add_argument("--multiple_of", type=int, default=128, help="the new number of ids is the next multiple of this")
    main(**vars(parser.parse_args()))
