"""From raw dumps to documents (paper, section 2.1): extraction, deduplication and filters for the seven kinds of sources.

It needs the extra `data`. `llama_jax clean` is the command; a module per kind has the pure functions that edit a text, and
`recipe`, which makes them the stages of a datatrove pipeline.
"""

from llama_jax.clean.inputs import find_input_files
from llama_jax.clean.items import DamagedInput, Dropped, Edit, InputFile, RawDocument, Read
from llama_jax.clean.kinds import KINDS, Kind, load_recipe
from llama_jax.clean.report import StepCounts, collect_counts, counts_table, write_report
from llama_jax.clean.stages import Stage, Workplace, run_stages
from llama_jax.clean.steps import CountedStep, EditDocuments, ReadDocuments, ReadFiles, WriteDocuments

__all__ = [
    "KINDS", "CountedStep", "DamagedInput", "Dropped", "Edit", "EditDocuments", "InputFile", "Kind", "RawDocument", "Read",
    "ReadDocuments", "ReadFiles", "Stage", "StepCounts", "Workplace", "WriteDocuments", "collect_counts", "counts_table",
    "find_input_files", "load_recipe", "run_stages", "write_report",
]
