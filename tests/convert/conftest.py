"""The folders in the three formats that the tests of formats read too."""

from tests.formats.conftest import folders, memory

__all__ = ["folders", "memory"]
