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
    from llama_jax.report.plot import Bar, IntervalRow, Marks, Point, bar_plot, interval_plot, point_plot
    from llama_jax.report.published import PUBLISHED_TABLES, PublishedColumn, PublishedTable, published_table
    from llama_jax.report.tables import Table, format_value, transposed

_MODULES = {
    "PUBLISHED_TABLES": "published",
    "Bar": "plot",
    "Curve": "curves",
    "IntervalRow": "plot",
    "Marks": "plot",
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
    "html_page": "page",
    "interval_plot": "plot",
    "markdown_page": "page",
    "point_plot": "plot",
    "print_tables": "page",
    "published_table": "published",
    "transposed": "tables",
    "write_evaluation_report": "evaluation",
    "write_page": "page",
}
"""The module of every public name, which is imported when the name is first used: tables need no matplotlib."""

__all__ = [
    "PUBLISHED_TABLES", "Bar", "Curve", "IntervalRow", "Marks", "Panel", "Part", "Passage", "Plot", "Point",
    "PublishedColumn", "PublishedTable", "Table", "bar_plot", "compare_evaluations", "curve_plot", "evaluation_tables",
    "format_value", "html_page", "interval_plot", "markdown_page", "point_plot", "print_tables", "published_table",
    "transposed", "write_evaluation_report", "write_page",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_getattr(__name__, _MODULES)
