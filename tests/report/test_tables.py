"""Cells of a table."""

from llama_jax.report.tables import format_value


def test_a_number_of_a_model_that_diverged_has_few_digits():
    assert format_value(1e304, 1e303, decimals=2) == "1.00e+304 ± 1.00e+303"
    assert format_value(0.75, 0.01, scale=100.0) == "75.0 ± 1.0" and format_value(12_345.678, decimals=2) == "12345.68"
