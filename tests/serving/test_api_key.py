"""Where the server's key comes from."""

import pytest

from llama_jax.cli.options import ServeOptions
from llama_jax.cli.serve import api_key
from llama_jax.errors import ConfigError


def test_the_key_comes_from_one_place(tmp_path, monkeypatch):
    monkeypatch.delenv("LLAMA_JAX_API_KEY", raising=False)
    file = tmp_path / "key"
    file.write_text("from-file\n")
    assert api_key(ServeOptions("x")) == ""
    assert api_key(ServeOptions("x", api_key="typed")) == "typed"
    assert api_key(ServeOptions("x", api_key_file=str(file))) == "from-file"
    monkeypatch.setenv("LLAMA_JAX_API_KEY", "from-environment")
    assert api_key(ServeOptions("x")) == "from-environment"
    assert api_key(ServeOptions("x", api_key_file=str(file))) == "from-file"
    with pytest.raises(ConfigError, match="give one of --api_key and --api_key_file"):
        api_key(ServeOptions("x", api_key="typed", api_key_file=str(file)))


@pytest.mark.parametrize("content, sentence", [
    (b"", "should hold the key in one line"), (b"\n \n", "should hold the key"), (b"a\nb\n", "in one line"),
    (b"\xff", "--api_key_file"), (b"x" * 5000, "has 5,000 bytes"),
])
def test_files_that_hold_no_key(tmp_path, content, sentence):
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(ConfigError, match=sentence):
        api_key(ServeOptions("x", api_key_file=str(tmp_path / "key")))
    with pytest.raises(ConfigError, match="No such file"):
        api_key(ServeOptions("x", api_key_file=str(tmp_path / "missing")))
