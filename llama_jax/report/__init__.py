"""Reports: tables, pages and plots, the paper's published tables, and the reports and comparisons of evaluations.

`Table`, `print_tables`, `write_page` and the plots know nothing of evaluations: the reports of ablation studies use them, too.
"""

from typing import TYPE_CHECKING

from llama_jax.lazy import lazy_getattr

if TYPE_CHECKING:
    from llama_jax.report.compare import compare_evaluations
    from llama_jax.report.curves import Curve, Panel, curve_plot
    from llama_jax.report.evaluation import evaluation_tables, write_evaluation_report
    from llama_jax.report.page import Part, Passage, Plot, html_page, markdown_page, print_tables, write_page
    from llama_jax.report.plot import (
        Bar,
        BarPanel,
        IntervalRow,
        Marks,
        Point,
        bar_plot,
        grouped_bar_plot,
        interval_plot,
        point_plot,
    )
    from llama_jax.report.published import PUBLISHED_TABLES, PublishedColumn, PublishedTable, published_table
    from llama_jax.report.tables import Table, format_value, transposed
    from llama_jax.report.tokenizers import MeasuredTokenizer, tokenizer_tables, write_tokenizer_report

_MODULES = {
    "PUBLISHED_TABLES": "published",
    "Bar": "plot",
    "BarPanel": "plot",
    "Curve": "curves",
    "IntervalRow": "plot",
    "Marks": "plot",
    "MeasuredTokenizer": "tokenizers",
    "Panel": "curves",
    "Part": "page",
    "Passage": "page",
    "Plot": "page",
    "Point": "plot",
    "PublishedColumn": "published",
    "PublishedTable": "published",
    "Table": "tables",
    "bar_plot": "plot",
    "compare_evaluations": "compare",
    "curve_plot": "curves",
    "evaluation_tables": "evaluation",
    "format_value": "tables",
    "grouped_bar_plot": "plot",
    "html_page": "page",
    "interval_plot": "plot",
    "markdown_page": "page",
    "point_plot": "plot",
    "print_tables": "page",
    "published_table": "published",
    "tokenizer_tables": "tokenizers",
    "transposed": "tables",
    "write_evaluation_report": "evaluation",
    "write_page": "page",
    "write_tokenizer_report": "tokenizers",
}
"""The module of every public name, which is imported when the name is first used: tables need no matplotlib."""

__all__ = [
    "PUBLISHED_TABLES", "Bar", "BarPanel", "Curve", "IntervalRow", "Marks", "MeasuredTokenizer", "Panel", "Part", "Passage",
    "Plot", "Point", "PublishedColumn", "PublishedTable", "Table", "bar_plot", "compare_evaluations", "curve_plot",
    "evaluation_tables", "format_value", "grouped_bar_plot", "html_page", "interval_plot", "markdown_page", "point_plot",
    "print_tables", "published_table", "tokenizer_tables", "transposed", "write_evaluation_report", "write_page",
    "write_tokenizer_report",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_getattr(__name__, _MODULES)
