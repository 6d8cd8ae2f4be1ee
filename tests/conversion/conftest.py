from tests.formats.conftest import folders, memory  # noqa: F401
