"""The decoder of 2017 against torch's own modules with the same weights: LayerNorm, MultiheadAttention, Linear, ReLU."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.config.presets import VANILLA, path_to_llama
from llama_jax.model.decoder import Transformer
from llama_jax.model.tree import parameters, unflatten
from tests.golden.small import FLOAT32

pytestmark = pytest.mark.peers
torch = pytest.importorskip("torch")
nn = torch.nn

SMALL = replace(VANILLA, vocab_size=96, dim=32, num_layers=3, num_heads=4, num_kv_heads=4, ffn_dim=128, max_length=64)


class TorchBlock(nn.Module):
    """One block made of torch's modules alone, with the norms after each addition, or before each layer."""

    def __init__(self, dim: int, heads: int, *, width: int, pre: bool, eps: float):
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, heads, bias=True, batch_first=True)
        self.up, self.down = nn.Linear(dim, width), nn.Linear(width, dim)
        self.attention_norm, self.feedforward_norm = nn.LayerNorm(dim, eps=eps), nn.LayerNorm(dim, eps=eps)
        self.pre = pre

    def forward(self, x):
        hidden = torch.triu(torch.ones(x.shape[1], x.shape[1], dtype=torch.bool), diagonal=1)

        def attend(x):
            return self.attention(x, x, x, attn_mask=hidden, need_weights=False)[0]

        def feed_forward(x):
            return self.down(torch.relu(self.up(x)))

        if self.pre:
            x = x + attend(self.attention_norm(x))
            return x + feed_forward(self.feedforward_norm(x))
        x = self.attention_norm(x + attend(x))
        return self.feedforward_norm(x + feed_forward(x))


def random_parameters(config) -> dict:
    """Parameters in our tree, larger than an initialisation, so that every one of them matters."""
    rng = np.random.default_rng(0)

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
        spread = 0.2 if ".scale" in name or ".b" in name else 0.15
        return ((1.0 if name.endswith("scale") else 0.0) + spread * rng.standard_normal(shape)).astype(np.float32)

    return unflatten({name: draw(name, leaf.shape) for name, leaf in parameters(config).items()})


def torch_blocks(config, params) -> list[TorchBlock]:
    """The blocks with our parameters in torch's layout: (out, in) matrices, queries, keys and values in one."""
    c, blocks = config, []
    for n in range(c.num_layers):
        attention, ffn = ({name: x[n] for name, x in params["layers"][part].items()} for part in ("attention", "feedforward"))
        block = TorchBlock(c.dim, c.num_heads, width=c.ffn_dim, pre=c.norm_position == "pre", eps=c.norm_eps)
        state = {
            "attention.in_proj_weight": np.concatenate([attention[w].reshape(c.dim, c.dim).T for w in ("wq", "wk", "wv")]),
            "attention.in_proj_bias": np.concatenate([attention[b].reshape(c.dim) for b in ("bq", "bk", "bv")]),
            "attention.out_proj.weight": attention["wo"].reshape(c.dim, c.dim).T, "attention.out_proj.bias": attention["bo"],
            "up.weight": ffn["w_up"].T, "up.bias": ffn["b_up"], "down.weight": ffn["w_down"].T, "down.bias": ffn["b_down"],
        }
        for norm in ("attention_norm", "feedforward_norm"):
            state[f"{norm}.weight"] = params["layers"][norm]["scale"][n]
            state[f"{norm}.bias"] = params["layers"][norm]["bias"][n]
        block.load_state_dict({name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in state.items()})
        blocks.append(block)
    return blocks


def torch_logits(config, params, tokens: np.ndarray, *, table):
    """Logits, with `table` as the embedding."""
    c, T = config, tokens.shape[1]
    x = table[torch.from_numpy(tokens)] * math.sqrt(c.dim)
    position, index = torch.arange(T)[:, None], torch.arange(0, c.dim, 2)
    angle = position / 10_000 ** (index / c.dim)
    encoding = torch.zeros(T, c.dim)
    encoding[:, 0::2], encoding[:, 1::2] = torch.sin(angle), torch.cos(angle)
    x = x + encoding
    for block in torch_blocks(c, params):
        x = block(x)
    if c.norm_position == "pre":
        norm = nn.LayerNorm(c.dim, eps=c.norm_eps)
        norm.load_state_dict({"weight": torch.from_numpy(params["final_norm"]["scale"]),
                              "bias": torch.from_numpy(params["final_norm"]["bias"])})
        x = norm(x)
    return x @ torch.from_numpy(params["head"])


@pytest.mark.parametrize("preset", ["vanilla", "vanilla+prenorm"])
def test_logits_and_gradients_equal_torch(preset):
    config = path_to_llama(SMALL)[preset]
    params = random_parameters(config)
    tokens = np.random.default_rng(1).integers(0, 96, (3, 40))
    model = Transformer(config, FLOAT32)
    table = torch.from_numpy(params["embedding"]).requires_grad_()
    wanted = torch_logits(config, params, tokens, table=table)
    assert wanted.abs().max() > 0.5
    np.testing.assert_allclose(model.apply({"params": params}, jnp.asarray(tokens)), wanted.detach(), atol=1e-5)

    def loss(params):
        return -jax.nn.log_softmax(model.apply({"params": params}, jnp.asarray(tokens)))[..., 7].mean()

    torch.nn.functional.log_softmax(wanted, dim=-1)[..., 7].mean().neg().backward()
    np.testing.assert_allclose(jax.grad(loss)(params)["embedding"], table.grad, atol=1e-6)
