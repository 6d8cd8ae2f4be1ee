from tests.golden.fixtures import gqa, small, stories  # noqa: F401
