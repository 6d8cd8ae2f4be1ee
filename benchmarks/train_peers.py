"""One side of the training benchmark: builds a LLaMA of a given shape in one library and times its own train step.

`python benchmarks/train_peers.py SIDE SHAPE DTYPE` builds, warms up and answers `ready {versions}`; after that every
line `go N` on its input runs N steps and answers their seconds as a JSON list. Only the standard library and numpy are
imported here, so that each side can live in an environment of its own. Every side does the same work: weights and
AdamW moments in float32, matmuls in DTYPE, gradients clipped at norm 1, no activation recomputed, random tokens.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata

import numpy as np

WARMUP_STEPS = 5  # the first compiles, the next few grow the heap to its lasting size
PACKAGES = ("jax", "flax", "optax", "torch", "transformers", "levanter", "haliax", "maxtext", "llama_jax")


@dataclass(frozen=True)
class Shape:
    """One model and one batch."""

    dim: int
    num_layers: int
    num_heads: int
    ffn_dim: int
    batch: int
    length: int
    vocab_size: int = 32_000

    @property
    def tokens(self) -> int:
        return self.batch * self.length

    @property
    def flops_per_token(self) -> int:
        """Multiply-adds counted twice, backward twice the forward, the causal half of attention."""
        weights = self.num_layers * (4 * self.dim**2 + 3 * self.dim * self.ffn_dim) + self.dim * self.vocab_size
        return 3 * (2 * weights + 2 * self.num_layers * self.length * self.dim)


SHAPES = {
    "S": Shape(dim=288, num_layers=6, num_heads=6, ffn_dim=768, batch=8, length=256),
    "M": Shape(dim=768, num_layers=12, num_heads=12, ffn_dim=2048, batch=2, length=512),
}


def batches(shape: Shape) -> Iterator[np.ndarray]:
    """Random tokens, new ones every step: zeros would be a different benchmark."""
    rng = np.random.default_rng(0)
    while True:
        yield rng.integers(shape.vocab_size, size=(shape.batch, shape.length), dtype=np.int32)


def ours(shape: Shape, dtype: str) -> Callable[[], None]:
    """The train step that `train.py` runs, layers unrolled: XLA on CPU copies a scanned layer out of its stack."""
    import jax

    from llama_jax.config import ComputeConfig, Config, DataConfig, MeshConfig, ModelConfig, OptimizerConfig, TrainingConfig
    from llama_jax.data.batches import batch_of_tokens
    from llama_jax.parallel.mesh import make_mesh
    from llama_jax.training.compiled import build

    config = Config(
        model=ModelConfig(
            vocab_size=shape.vocab_size,
            dim=shape.dim,
            num_layers=shape.num_layers,
            num_heads=shape.num_heads,
            num_kv_heads=shape.num_heads,
            ffn_dim=shape.ffn_dim,
            max_length=shape.length,
        ),
        compute=ComputeConfig(dtype=dtype, scan_layers=False),
        data=DataConfig(sequence_length=shape.length),
        optimizer=OptimizerConfig(peak_lr=1e-4, warmup_steps=10),
        training=TrainingConfig(num_steps=10_000, batch_size=shape.batch),
    )
    mesh = make_mesh(MeshConfig())
    program = build(config, mesh)
    with jax.set_mesh(mesh):
        state = program.init()
    feed = batches(shape)

    def step() -> None:
        nonlocal state
        tokens = next(feed)
        with jax.set_mesh(mesh):
            batch = batch_of_tokens(np.concatenate([tokens, tokens[:, :1]], axis=1), bos_id=-1)
            state, metrics = program.train_step(state, batch)
        jax.block_until_ready((state, metrics))

    return step


def transformers(shape: Shape, dtype: str) -> Callable[[], None]:
    """transformers' LlamaForCausalLM, eager; bfloat16 is torch's autocast over float32 weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.dim,
        intermediate_size=shape.ffn_dim,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        max_position_embeddings=shape.length,
        tie_word_embeddings=False,
        use_cache=False,
        attn_implementation="sdpa",
    )
    model = LlamaForCausalLM(config).float().train()
    # fused is the fastest of torch's three AdamW loops on CPU.
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    feed = batches(shape)

    def step() -> None:
        tokens = torch.from_numpy(next(feed)).long()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def levanter(shape: Shape, dtype: str) -> Callable[[], None]:
    """Levanter's Trainer.train_step on its Llama."""
    import haliax as hax
    import jax
    import jmp
    from levanter.layers.attention import AttentionBackend
    from levanter.models.llama import LlamaConfig
    from levanter.models.lm_model import LmExample, compute_next_token_loss
    from levanter.optim import AdamConfig
    from levanter.tracker import NoopConfig
    from levanter.trainer import Trainer, TrainerConfig

    model = LlamaConfig(
        seq_len=shape.length,
        hidden_dim=shape.dim,
        intermediate_dim=shape.ffn_dim,
        num_layers=shape.num_layers,
        num_heads=shape.num_heads,
        num_kv_heads=shape.num_heads,
        gradient_checkpointing=False,
        # On CPU its default, a blocked attention written in jax, takes up to twice the time of a whole step.
        attn_backend=AttentionBackend.VANILLA,
        scan_layers=False,
    )
    config = TrainerConfig(
        id="benchmark",
        mp=jmp.get_policy("f32" if dtype == "float32" else "p=f32,c=bfloat16"),
        tracker=NoopConfig(),
        train_batch_size=shape.batch,
        num_train_steps=100_000,
        require_accelerator=False,
        load_checkpoint=False,
        log_jaxprs=False,
        log_xla_hlo=False,
    )
    config._validate_and_set_defaults()  # the part of config.initialize() that starts neither ray nor log files

    def loss(model, example, key=None):
        # Its own mean passes a float mask to jnp.mean, which this jax refuses.
        return compute_next_token_loss(model, example, key=key, reduction=None).mean().scalar()

    optimizer = AdamConfig(learning_rate=1e-4, weight_decay=0.1, max_grad_norm=1.0).build(config.num_train_steps)
    trainer = Trainer(config, optimizer, loss, add_default_hooks=False)
    trainer.__enter__()  # its mesh and axis mapping, for as long as this process lives
    key = jax.random.PRNGKey(0)
    vocab = hax.Axis("vocab", shape.vocab_size)
    state = trainer.initial_state(key, model_init=lambda: model.build(vocab, key=key))
    feed = batches(shape)

    def step() -> None:
        nonlocal state
        tokens = hax.named(next(feed), (config.TrainBatch, model.Pos))
        state = trainer.train_step(state, hax.vmap(LmExample.causal, config.TrainBatch)(tokens)).state
        jax.block_until_ready(state)

    return step


def _maxtext_arguments(shape: Shape, dtype: str) -> list[str]:
    import maxtext

    settings = {
        "run_name": "benchmark",
        "base_output_directory": tempfile.gettempdir(),
        "hardware": "cpu",
        "skip_jax_distributed_system": True,
        "enable_checkpointing": False,
        "enable_goodput_recording": False,
        "enable_tensorboard": False,
        "log_config": False,
        "dataset_type": "synthetic",
        "decoder_block": "llama2",
        "base_emb_dim": shape.dim,
        "base_num_query_heads": shape.num_heads,
        "base_num_kv_heads": shape.num_heads,
        "head_dim": shape.dim // shape.num_heads,
        "base_mlp_dim": shape.ffn_dim,
        "base_num_decoder_layers": shape.num_layers,
        "mlp_activations": "['silu','linear']",
        "vocab_size": shape.vocab_size,
        "logits_via_embedding": False,
        "enable_dropout": False,
        "max_target_length": shape.length,
        "per_device_batch_size": shape.batch,
        "dtype": dtype,
        "weight_dtype": "float32",
        "gradient_clipping_threshold": 1.0,
        "attention": "dot_product",
        "remat_policy": "minimal_with_context",  # the policy that keeps most; it has none that keeps all
        "scan_layers": False,
        "steps": 100_000,
    }
    base = os.path.join(os.path.dirname(maxtext.__file__), "configs", "base.yml")
    return ["train", base, *(f"{name}={value}" for name, value in settings.items())]


def maxtext(shape: Shape, dtype: str) -> Callable[[], None]:
    """MaxText's train step on its synthetic batches, set up as its train command does."""
    os.environ["DECOUPLE_GCLOUD"] = "TRUE"  # runs without the clients of a cloud
    import jax
    from flax import nnx
    from flax.core.spmd import logical_axis_rules
    from maxtext.trainers.pre_train import train
    from maxtext.utils import sharding, train_utils

    config, recorder = train.initialize(_maxtext_arguments(shape, dtype))
    _, _, shardings, _, mesh, _, _, loader, _, _, train_state = train_utils.setup_train_loop(config, recorder)
    graph, state = nnx.split(train_state)
    del train_state  # a second set of references would keep the first state's buffers from being donated
    params_shardings, shardings = sharding.maybe_update_params_sharding_with_opt(config, shardings)
    train_step, _ = train_utils.jit_train_and_eval_step(
        config, graph, mesh, state, shardings, train.train_step, params_shardings=params_shardings
    )

    def step() -> None:
        nonlocal state
        with jax.set_mesh(mesh), logical_axis_rules(config.logical_axis_rules):
            state, _ = train_step(state, loader.load_next_batch())
        jax.block_until_ready(state)

    return step


SIDES = {"ours": ours, "transformers": transformers, "levanter": levanter, "maxtext": maxtext}


def versions() -> dict[str, str]:
    installed = {}
    for package in PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return installed


def seconds(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def main() -> None:
    side, shape, dtype = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries write to stdout too; whoever reads the answers must not see that
    try:
        step = SIDES[side](SHAPES[shape], dtype)
    except ModuleNotFoundError as error:
        print("missing", error, file=answers)
        return
    for _ in range(WARMUP_STEPS):
        step()
    print("ready", json.dumps(versions()), file=answers)
    for line in sys.stdin:
        count = int(line.removeprefix("go "))
        print(json.dumps([seconds(step) for _ in range(count)]), file=answers)


if __name__ == "__main__":
    main()
