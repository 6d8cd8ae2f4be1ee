"""Which tokenizer a folder holds, and which of its tokens begin and end a text by the files beside it."""

import json
import pickle
import re
from pathlib import Path

import pytest
import tokenizers
from tokenizers import models, processors

from llama_jax.errors import DataError
from llama_jax.formats.tokenizer_export import hf_tokenizer_files
from llama_jax.inference.prompts import encode_prompt
from llama_jax.scoring.likelihood import encode_pair
from llama_jax.tokenizer.bpe import TokenizerJson
from llama_jax.tokenizer.load import load_tokenizer
from llama_jax.tokenizer.sentencepiece import SentencePiece
from llama_jax.tokenizer.special_tokens import SpecialTokens
from tests.formats.memory import config_of


@pytest.mark.parametrize("kind", ["llama3", "from_json", "tokenizer"])
def test_saved_pickled_and_found_again(request, tmp_path, kind):
    tokenizer = request.getfixturevalue(kind)
    tokenizer.save(tmp_path)
    for again in (load_tokenizer(tmp_path), load_tokenizer(tmp_path / tokenizer.FILE), pickle.loads(pickle.dumps(tokenizer))):
        assert (type(again), again.sha256, again.begin, again.eos_ids) == \
            (type(tokenizer), tokenizer.sha256, tokenizer.begin, tokenizer.eos_ids)
        assert again.encode("To be, or not") == tokenizer.encode("To be, or not")
    assert str(again).startswith({"llama3": "tiktoken (tokenizer.model), 8", "from_json": "tokenizers (tokenizer.json), 600",
                                  "tokenizer": "SentencePiece (tokenizer.model), 512"}[kind])


def test_the_right_one_of_two(tmp_path, tokenizer, from_json):
    """tokenizer.model is preferred to tokenizer.json, unless that has more tokens."""
    tokenizer.save(tmp_path)
    small = tokenizers.Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "a": 2}, unk_token="a"))
    small.save(str(tmp_path / "tokenizer.json"))
    assert isinstance(load_tokenizer(tmp_path), SentencePiece)
    from_json.save(tmp_path)
    assert isinstance(load_tokenizer(tmp_path), TokenizerJson)


def write(folder: Path, **files) -> Path:
    for name, values in files.items():
        (folder / f"{name}.json").write_text(json.dumps(values))
    return folder


def test_two_tokenizers_that_disagree_are_said(tmp_path, tokenizer, llama3, from_json, caplog):
    """Two tokenizers that agree, such as those that our own export writes, cause no warning."""
    for number, exported in enumerate((llama3, tokenizer)):
        for name, data in hf_tokenizer_files(exported).items():
            (tmp_path / name).write_bytes(data)
        assert load_tokenizer(tmp_path).FILE == "tokenizer.model" and not caplog.messages, number
    (tmp_path / "tokenizer.json").write_bytes(from_json.model)
    taken = load_tokenizer(tmp_path)
    [said] = caplog.messages
    assert re.match(rf"{tmp_path}: tokenizer.model and tokenizer.json disagree about \d+ ids, first \d+, which is '", said)
    assert said.endswith(f"{taken.FILE} is taken.")


def test_rules_of_a_folder(tmp_path, tokenizer):
    tokenizer.save(tmp_path)
    assert load_tokenizer(tmp_path).begin == (1,) and load_tokenizer(tmp_path).eos_ids == (2,)
    write(tmp_path, config={"eos_token_id": 7}, tokenizer_config={"add_bos_token": False})
    found = load_tokenizer(tmp_path)
    assert found.begin == () and found.eos_ids == (2, 7) and found.eos_id == 2
    found.save(tmp_path / "run")  # without the config.json that said it
    assert load_tokenizer(tmp_path / "run").eos_ids == (2, 7) and load_tokenizer(tmp_path / "run").begin == ()
    write(tmp_path, generation_config={"eos_token_id": [5, 9]})
    assert load_tokenizer(tmp_path).eos_ids == (2, 5, 9)
    assert encode_prompt(found, "To be", config=config_of()) == found.encode("To be")
    assert encode_pair(found, context="To", continuation=" be")[0] == found.encode("To")
    assert encode_pair(found, context="", continuation="be")[0] == [1]


def test_rules_name_the_control_pieces(tmp_path, from_json, byte_level):
    from_json.save(tmp_path)
    assert load_tokenizer(tmp_path).begin == ()  # its template sets none
    write(tmp_path, tokenizer_config={"bos_token": {"content": "<|eot_id|>"}, "eos_token": "<|begin_of_text|>"})
    found = load_tokenizer(tmp_path)
    assert (found.bos_id, found.eos_id, found.begin) == (2, 0, ())
    templated = tokenizers.Tokenizer.from_str(byte_level.to_str())
    templated.post_processor = processors.TemplateProcessing(single="<|begin_of_text|> $A",
                                                             special_tokens=[("<|begin_of_text|>", 0)])
    assert TokenizerJson(templated.to_str().encode()).begin == (0,)
    assert TokenizerJson(templated.to_str().encode(), SpecialTokens(adds_bos=False)).begin == ()


@pytest.mark.parametrize("name, content, sentence", [
    ("tokenizer.json", b"{}", "is not a tokenizer of the tokenizers library"),
    ("tokenizer.json", b"no", "is not a tokenizer of the tokenizers library"),
    ("tokenizer.model", b"YQ== 0\nYg== 1\n", "is damaged: its 2 ranks do not count from 0, or a byte has none"),
    ("tokenizer.model", b"YQ== 0\nnot\n", "not in tiktoken's format: a line is not base64 and a rank"),
])
def test_damaged_files(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=sentence) as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value) and name in str(caught.value)


@pytest.mark.parametrize("files, sentence", [
    ({"tokenizer_config": []}, "tokenizer_config.json should hold an object"),
    ({"generation_config": {"eos_token_id": "end"}}, "should be ids or lists of ids, got 'end'"),
])
def test_damaged_rules(tmp_path, tokenizer, files, sentence):
    tokenizer.save(tmp_path)
    with pytest.raises(DataError, match=sentence):
        load_tokenizer(write(tmp_path, **files))


def test_a_tokenizer_that_cannot_end_a_text(tmp_path):
    tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(DataError, match=r"has no end-of-text token; name it as eos_token in a tokenizer_config.json"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no model", b"\xff" * 1000])
def test_a_file_that_is_no_model_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(DataError, match=rf"tokenizer.model is not a SentencePiece model \({len(content)} bytes\)"):
        load_tokenizer(tmp_path)


def test_save_and_load(tmp_path, tokenizer):
    tokenizer.save(tmp_path / "new")
    assert load_tokenizer(tmp_path / "new").sha256 == tokenizer.sha256
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["tokenizer.model"]
    with pytest.raises(DataError, match=r"no tokenizer at .*missing: expected"):
        load_tokenizer(tmp_path / "missing")
