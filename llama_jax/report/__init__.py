"""Reports: tables, pages and plots, the paper's published tables, and the reports and comparisons of evaluations.

`Table`, `print_tables`, `write_page` and `bar_plot` know nothing of evaluations, so that other reports can use them.
"""

from typing import TYPE_CHECKING

from llama_jax.lazy import lazy_getattr

if TYPE_CHECKING:
    from llama_jax.report.compare import compare_evaluations
    from llama_jax.report.evaluation import evaluation_tables, write_evaluation_report
    from llama_jax.report.page import Plot, html_page, markdown_page, print_tables, write_page
    from llama_jax.report.plot import Bar, Marks, bar_plot
    from llama_jax.report.published import PUBLISHED_TABLES, PublishedColumn, PublishedTable, published_table
    from llama_jax.report.tables import Table, format_value, transposed

_MODULES = {
    "PUBLISHED_TABLES": "published",
    "Bar": "plot",
    "Marks": "plot",
    "Plot": "page",
    "PublishedColumn": "published",
    "PublishedTable": "published",
    "Table": "tables",
    "bar_plot": "plot",
    "compare_evaluations": "compare",
    "evaluation_tables": "evaluation",
    "format_value": "tables",
    "html_page": "page",
    "markdown_page": "page",
    "print_tables": "page",
    "published_table": "published",
    "transposed": "tables",
    "write_evaluation_report": "evaluation",
    "write_page": "page",
}
"""The module of every public name, which is imported when the name is first used: tables need no matplotlib."""

__all__ = [
    "PUBLISHED_TABLES", "Bar", "Marks", "Plot", "PublishedColumn", "PublishedTable", "Table", "bar_plot",
    "compare_evaluations", "evaluation_tables", "format_value", "html_page", "markdown_page", "print_tables",
    "published_table", "transposed", "write_evaluation_report", "write_page",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_getattr(__name__, _MODULES)
