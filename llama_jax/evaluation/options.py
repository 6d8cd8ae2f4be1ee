"""What eval.py is told; the work, and jax with it, is imported when it begins."""

from dataclasses import dataclass
from typing import Literal

from llama_jax.evaluation.task import Settings


@dataclass(frozen=True)
class Evaluate:
    """Run the paper's tasks on a checkpoint, or compare two runs. The same command again goes on where it was stopped.

    Groups: common_sense closed_book reading math code mmlu bias paper. Further tasks: lambada perplexity.
    """

    checkpoint: str = ""
    """A run directory of train.py (its newest step), DIR/checkpoints/STEP, a Hugging Face or a Meta folder."""
    tasks: tuple[str, ...] = ()
    """Tasks and groups, separated by commas or spaces."""
    compare: tuple[str, str] | None = None
    """Two folders that eval.py wrote: print the paired differences instead of evaluating."""
    tables: tuple[str, ...] = ()
    """Numbers of the paper's tables (3 to 16), or all: print them as they were published instead of evaluating."""
    data_dir: str = "data/eval"
    """Folder of the official files: boolq/dev.jsonl, piqa/valid.jsonl and so on (docs/EVALUATION.md lists them)."""
    output: str = ""
    """Folder of the report; empty: evals/ inside the run directory."""
    protocol: Literal["llama", "lm_eval", "raw"] = "llama"
    """llama: the paper's prompts and normalisation; lm_eval: that harness's; raw: the paper's prompts, plain sums."""
    num_fewshot: int | None = None
    """Worked examples; unset: each task's own."""
    limit: int = 0
    """The first N items of each task (of each subject for MMLU); 0: all."""
    num_samples: int | None = None
    """Samples a question for maj1@k and pass@k; unset: the paper's k."""
    max_tokens: int | None = None
    """Tokens at most of a generated answer; unset: each task's own."""
    seed: int = 0
    """Of samples, and of which worked examples are shown."""
    allow_code_execution: bool = False
    """Run generated programs in the sandbox; without it they are written in the format of OpenAI's human-eval."""
    scorer: str = ""
    """Who scores generations (RealToxicityPrompts): MODULE:FUNCTION, or a command that maps JSON lines to JSON lines."""
    gotcha: Literal["answer", "both"] = "both"
    """WinoGender's gotcha sentences: only those whose answer is the occupation, or both answers."""
    text_files: tuple[str, ...] = ()
    """What the task perplexity measures: .txt .jsonl .parquet, also compressed, or folders of them."""
    tensor: int = 1
    """Devices that share the heads and the vocabulary of the model; rows are spread over the others."""

    def run(self) -> None:
        """Evaluate, compare, or print the paper's tables."""
        from llama_jax.cli.evaluate import run_compare, run_evaluate, run_tables

        if self.tables:
            run_tables(self)
        elif self.compare:
            run_compare(self)
        else:
            run_evaluate(self)

    def names(self) -> list[str]:
        """What `tasks` says, one by one."""
        return [name for text in self.tasks for name in text.replace(",", " ").split()]

    def settings(self, output: str = "") -> Settings:
        """The part that decides what is asked."""
        names = ("protocol", "num_fewshot", "num_samples", "max_tokens", "seed", "allow_code_execution", "scorer", "gotcha",
                 "text_files")
        return Settings(output=output, **{name: getattr(self, name) for name in names})
