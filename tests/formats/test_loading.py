"""From a folder of any format to a model, its parameters and its tokenizer."""

import jax
import numpy as np

from llama_jax.formats.loading import load


def test_load_takes_every_format(folders):
    trees = [load(folders[to]) for to in ("orbax", "hf", "meta")]
    for model, params, tokenizer in trees:
        assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(params))
        jax.tree.map(np.testing.assert_array_equal, params, trees[0][1])
        assert tokenizer.sha256 == trees[0][2].sha256 and model.config.num_layers == 3
    step = load(folders["orbax"] / "checkpoints/0")[1]
    jax.tree.map(np.testing.assert_array_equal, step, trees[0][1])
