"""GitHub: licences by their texts, code by its names and lines, headers without notices, every content once."""

import json
import shutil
import sysconfig
from pathlib import Path

import pytest

from llama_jax.clean.github import read_code, recipe
from llama_jax.clean.inputs import find_input_files
from llama_jax.clean.items import Dropped, RawDocument
from llama_jax.clean.kinds import KINDS
from llama_jax.clean.licences import is_licence_file, licence_of_files, permit_named, recognise_licence
from llama_jax.clean.report import collect_counts
from llama_jax.clean.source_files import check_lines, language_of, strip_header
from llama_jax.clean.stages import Workplace, run_stages

SITE = Path(sysconfig.get_path("purelib"))
MIT = """Copyright (c) 2020 A. Person

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND."""
GPL = "GNU GENERAL PUBLIC LICENSE\nVersion 3, 29 June 2007\nIt is not the GNU Affero General Public License. " * 20


def licence_files(package: str) -> dict[str, str]:
    """Licence files of an installed package, as {name: text}; skips the test where the package is absent."""
    folders = list(SITE.glob(f"{package}-*.dist-info"))
    if not folders:
        pytest.skip(f"needs {package}, whose licence is read")
    return {file.name: file.read_text() for file in folders[0].rglob("*") if is_licence_file(file.name) and file.is_file()}


@pytest.mark.parametrize(("package", "licence"), [
    ("jax", "apache"), ("flax", "apache"), ("requests", "apache"), ("warcio", "apache"), ("click", "bsd"), ("jinja2", "bsd"),
    ("pygments", "bsd"), ("mpmath", "bsd"), ("rich", "mit"), ("pluggy", "mit"), ("packaging", "apache+bsd"), ("sympy", "bsd+mit"),
    ("sniffio", "apache+mit"), ("django", "bsd"), ("ruff", "mit")])
def test_licences_that_are_kept(package, licence):
    assert licence_of_files(licence_files(package)) == licence


@pytest.mark.parametrize(("package", "licence"), [
    ("certifi", "MPL"), ("hypothesis", "MPL"), ("tqdm", "MPL"), ("typing_extensions", "PSF"), ("defusedxml", "PSF"),
    ("py7zr", "LGPL"), ("inflate64", "LGPL"), ("shellingham", "ISC")])
def test_licences_that_are_refused_by_name(package, licence):
    with pytest.raises(Dropped, match=f"^licence: {licence}$"):
        licence_of_files(licence_files(package))


@pytest.mark.parametrize(("text", "reason"), [
    (GPL, "licence: GPL"), (MIT + "\nThe Software shall be used for Good, not Evil.", "licence: JSON"),
    (MIT + "\n\n" + GPL, "licence: GPL"), ("All rights reserved. Do not copy.", "licence: unknown"), ("", "licence: unknown"),
    ("We have no MIT permit. Read what the lawyers say. " * 30, "licence: unknown"),
    ("Commons Clause\n" + MIT, "licence: Commons Clause")])
def test_refused_texts(text, reason):
    with pytest.raises(Dropped, match=f"^{reason}$"):
        recognise_licence(text)


def test_licence_texts():
    commented = "".join(f"# {line}\n" for line in MIT.splitlines())
    assert recognise_licence(commented) == "mit", "a licence in a comment"
    assert recognise_licence("Licensed under the MIT license.") == "mit"
    assert recognise_licence("BSD-3-Clause") == "bsd"
    assert licence_of_files({"LICENSE": MIT, "LICENSE.python": "PSF: Python was created in the early 1990s"}) == "mit"
    with pytest.raises(Dropped, match="GPL"):
        licence_of_files({"LICENSE": MIT, "COPYING": GPL})
    free = "This is free and unencumbered software released into the public domain." + " Anyone is free to copy it." * 30
    choice = "Dual-licensed under the Unlicense and MIT licenses.\n\nUse it under the terms of either license.\n"
    assert licence_of_files({"COPYING": choice, "LICENSE-MIT": MIT, "UNLICENSE": free}) == "mit"
    assert licence_of_files({"LICENSE-MIT": MIT, "UNLICENSE": free}) == "mit", "without a word"
    long_gpl, either = GPL + " " * 600, "You may use it under either of the licences found in LICENSE-MIT and LICENSE-GPL."
    assert licence_of_files({"LICENSE": either, "LICENSE-MIT": MIT, "LICENSE-GPL": long_gpl}) == "mit"
    for files in ({"UNLICENSE": free}, {"LICENSE": either.replace("either", "both"), "LICENSE-MIT": MIT, "LICENSE-GPL": long_gpl},
                  {"LICENSE-MIT": MIT, "LICENSE-GPL": long_gpl}, {"LICENSE": either, "LICENSE-GPL": long_gpl}):
        with pytest.raises(Dropped):
            licence_of_files(files)
    notice = "Licensed under the Apache License, Version 2.0, WITHOUT WARRANTIES OF ANY KIND, either express or implied."
    with pytest.raises(Dropped, match="GPL"):
        licence_of_files({"LICENSE": notice, "COPYING": GPL})
    assert [is_licence_file(name) for name in ("LICENSE", "licence.md", "COPYING.LESSER", "LICENSE-MIT", "license.py", "LICENSED"
                                               )] == [True, True, True, True, False, False]


@pytest.mark.parametrize("licence", ["mit", "MIT", "apache-2.0", "bsd-3-clause", "BSD-2-Clause", "0BSD", ["MIT", "Apache-2.0"],
                                     "MIT OR GPL-3.0-only", "Apache-2.0 WITH LLVM-exception", "(MIT AND BSD-3-Clause)"])
def test_names_that_are_kept(licence):
    assert permit_named(licence) is None


@pytest.mark.parametrize(("licence", "reason"), [
    ("gpl-2.0", "licence: GPL"), ("agpl-3.0", "licence: AGPL"), ("lgpl-2.1", "licence: LGPL"), ("mpl-2.0", "licence: MPL"),
    ("MIT AND GPL-3.0", "licence: mit and gpl-3.0"), (["MIT", "GPL-3.0"], "licence: GPL"), ("isc", "licence: ISC"),
    ("cc0-1.0", "licence: Creative Commons"), ("mitsubishi", "licence: mitsubishi"), (None, "no licence"), ("", "no licence"),
    ([], "no licence")])
def test_names_that_are_refused(licence, reason):
    with pytest.raises(Dropped) as caught:
        permit_named(licence)
    assert str(caught.value).lower() == reason.lower()


def test_files_by_name():
    expected = {
        "a/b.py": "Python", "x.CPP": "C++", "README.md": "Markdown", "Makefile": "Makefile", "src/CMakeLists.txt":
        "CMake", "lib.rs": "Rust", "m.h": "C", "a.rst": "reStructuredText", "a.tex": "TeX", "b.ts": "TypeScript"}
    assert {path: language_of(path) for path in expected} == expected
    for path in ("logo.png", "data.csv", "package-lock.json", "yarn.lock", "model.bin", "config.yaml", "words.txt", "x.jsonl",
                 "py"):
        with pytest.raises(Dropped, match="neither code nor documentation"):
            language_of(path)
    for path in ("jquery.min.js", "style-min.css", "app.bundle.js"):
        with pytest.raises(Dropped, match="minified"):
            language_of(path)


def test_lines():
    good = "def f(x):\n    return x + 1\n"
    assert check_lines(good, {}) == good
    for text, reason in (("x" * 1001, "a line over 1000 characters"),
                         ("y " * 60 + "\n" + "z " * 51, "mean line over 100 characters"),
                         ("[[0, 1],,,\n" * 10, "less than 25% letters and digits")):
        with pytest.raises(Dropped, match=reason):
            check_lines(text, {})
    assert check_lines("x" * 1000 + "\n" * 10, {}) and check_lines("(a)\n" * 9, {}) and check_lines("", {}) == ""


NOTICE = ["Copyright 2020 A. Person. All rights reserved.", "", "Licensed under the Apache License, Version 2.0;",
          "you may not use this file except in compliance with the License."]


def commented(mark: str, lines: list[str]) -> str:
    return "".join(f"{mark} {line}".rstrip() + "\n" for line in lines)


@pytest.mark.parametrize("mark", ["#", "//", "--", ";", "%", "!"])
def test_headers_of_line_comments(mark):
    code = "code here\n"
    assert strip_header(commented(mark, NOTICE) + "\n" + code, {}) == code
    about = commented(mark, ["Sorts numbers."])
    assert strip_header(commented(mark, ["Sorts numbers.", "", *NOTICE]) + "\n" + code, {}) == about + "\n" + code
    assert strip_header(commented(mark, [*NOTICE, "", "Sorts numbers."]) + code, {}) == about + code
    untouched = commented(mark, ["Sorts numbers.", "", "Slowly."]) + "\n\n\n" + code + commented(mark, NOTICE)
    assert strip_header(untouched, {}) == untouched, "a notice further down, and a header without one"


@pytest.mark.parametrize(("begin", "middle", "end"), [
    ("/*", " *", " */"), ("<!--", "", "-->"), ("(*", " *", " *)"), ("{-", "", "-}")])
def test_headers_of_block_comments(begin, middle, end):
    def block(lines: list[str]) -> str:
        return f"{begin}\n{commented(middle, lines) if middle else chr(10).join(lines) + chr(10)}{end}\n"

    assert strip_header(block(NOTICE) + "\ncode\n", {}) == "code\n"
    assert strip_header(block(["Sorts numbers.", "", *NOTICE]) + "code\n", {}) == block(["Sorts numbers."]) + "code\n"
    assert strip_header(block([*NOTICE, "", "Sorts numbers."]) + "code\n", {}) == block(["Sorts numbers."]) + "code\n"
    assert strip_header(f"{begin} {NOTICE[0]} {end}\ncode\n", {}) == "code\n"
    assert strip_header(f"{begin} never closed, {NOTICE[0]}\ncode\n", {}) == f"{begin} never closed, {NOTICE[0]}\ncode\n"


def test_what_stands_before_a_header_stays():
    for first in ("#!/usr/bin/env python3\n", "#!/bin/sh\n# -*- coding: utf-8 -*-\n"):
        assert strip_header(first + commented("#", NOTICE) + "import os\n", {}) == first + "import os\n"
    assert strip_header("<?php\n/* " + NOTICE[0] + " */\necho 1;\n", {}) == "<?php\necho 1;\n"
    code = "#include <stdio.h>\n#define COPYRIGHT 2020\n"
    assert strip_header(code, {}) == code, "a directive is no comment"
    prose = "# Copyright 2020: a history\n\nText.\n"
    assert strip_header(prose, {"language": "Markdown"}) == prose, "a title is no comment"


def test_real_headers():
    file = SITE / "jax" / "_src" / "ad_util.py"
    text = file.read_text()
    assert text.startswith("# Copyright")
    cleaned = strip_header(text, {"language": "Python"})
    assert cleaned.startswith(("from ", "import ", '"""', "# ")) and "License" not in cleaned[:300]
    assert text.endswith(cleaned)


@pytest.fixture
def trees(tmp_path) -> Path:
    """Repositories: two permitted ones with a file in common, one of which holds another's code, one of GPL, one without."""
    files = {
        "good/LICENSE": MIT, "good/src/sort.py": commented("#", NOTICE) + "\ndef sort(x):\n    return sorted(x)\n",
        "good/README.md": "# Sort\n\nSorts numbers.\n", "good/logo.png": "\x89PNG", "good/.git/config.py": "secret = 1\n",
        "good/node_modules/left/pad.js": "pad();\n", "good/lib/jquery.min.js": "minified()",
        "good/extra/COPYING": GPL, "good/extra/free.py": "free = True\n",
        "twin/LICENCE.txt": "Licensed under the MIT license.", "twin/sort.py": "def sort(x):\n    return sorted(x)\n",
        "twin/windows.py": "a = 1\r\nb = 2\r\n", "twin/raw.c": "\0\1\2", "twin/empty.py": "",
        "gpl/COPYING": GPL, "gpl/main.c": "int main() {}\n", "none/main.c": "int main() { return 1; }\n"}
    for name, content in files.items():
        (tmp_path / "trees" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "trees" / name).write_text(content, newline="")
    return tmp_path / "trees"


def clean(source: Path, output: Path, *, workers: int = 1) -> None:
    place = Workplace(find_input_files((str(source),), KINDS["github"]), output)
    assert run_stages(recipe(place, None), place, settings={}, workers=workers)


def dropped_at(output: Path) -> dict[str, dict[str, int]]:
    return {step.step: {reason: number for reason, (number, _) in step.dropped.items()} for step in collect_counts(output)}


def test_trees(tmp_path, trees, documents):
    assert [file.name for file in find_input_files((str(trees),), KINDS["github"])] == ["good", "gpl", "none", "twin"]
    clean(trees, tmp_path / "out")
    assert [(record["id"], record["text"]) for record in documents(tmp_path / "out")] == [
        ("good/README.md", "# Sort\n\nSorts numbers.\n"), ("good/src/sort.py", "def sort(x):\n    return sorted(x)\n"),
        ("twin/windows.py", "a = 1\nb = 2\n")]
    assert documents(tmp_path / "out")[1]["metadata"] == {
        "repo_name": "good", "path": "src/sort.py", "license": "mit", "language": "Python"}
    assert dropped_at(tmp_path / "out") == {
        "read": {"licence: GPL": 2, "no licence": 1, "neither code nor documentation": 1, "minified": 1, "binary": 1},
        "lines": {"empty": 1}, "headers": {}, "duplicates": {"duplicate": 1}}


def test_one_tree(tmp_path, trees):
    [file] = find_input_files((str(trees / "good"),), KINDS["github"])
    assert file.name == "good" and file.path == trees / "good"
    assert [item.id for item in read_code(file.path) if isinstance(item, RawDocument)] == ["README.md", "src/sort.py"]


def test_records(tmp_path, documents):
    records = [
        {"content": "a = 1\n", "license": "mit", "path": "a.py", "repo_name": "one/a", "size": "6"},
        {"content": None, "license": "mit", "path": "b.bin", "repo_name": "one/a"},
        {"content": "b = 1\n", "license": "gpl-3.0", "path": "b.py", "repo_name": "two/b"},
        {"content": "c = 1\n", "path": "c.py", "repo_name": "two/c"},
        {"text": "d = 1\n", "license": ["Apache-2.0"]},
        {"content": "a = 1\n", "license": "bsd-3-clause", "path": "copy.py", "repo_name": "three/c"},
        {"content": "{}", "license": "mit", "path": "package.json", "repo_name": "one/a"}]
    file = tmp_path / "in" / "part" / "files-000.json"
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(record) + "\n" for record in records) + "[1]\nno json\n")
    clean(tmp_path / "in", tmp_path / "out")
    assert [(record["id"], record["text"]) for record in documents(tmp_path / "out")] == [
        ("part/files-000.json/one/a/a.py", "a = 1\n"), ("part/files-000.json/4", "d = 1\n")]
    assert dropped_at(tmp_path / "out") == {
        "read": {"no `content`, as of binary and large files": 1, "licence: GPL": 1, "no licence": 1, "no JSON object": 1,
                 "no JSON": 1, "neither code nor documentation": 1},
        "lines": {}, "headers": {}, "duplicates": {"duplicate": 1}}


def test_installed_packages(tmp_path, documents, untimed):
    for package in ("click", "pluggy", "certifi", "iniconfig"):
        if not (SITE / package).is_dir():
            pytest.skip(f"needs {package} as an example of a repository")
        shutil.copytree(SITE / package, tmp_path / "in" / package, ignore=shutil.ignore_patterns("__pycache__"))
        for name, text in licence_files(package).items():
            (tmp_path / "in" / package / name).write_text(text)
    clean(tmp_path / "in", tmp_path / "one", workers=1)
    clean(tmp_path / "in", tmp_path / "two", workers=3)
    kept = documents(tmp_path / "one")
    assert kept == documents(tmp_path / "two")
    assert {record["metadata"]["license"] for record in kept} == {"bsd", "mit"}
    names = {record["id"] for record in kept}
    assert {"click/core.py", "click/parser.py", "pluggy/_hooks.py", "iniconfig/_parse.py"} <= names
    assert not any(name.startswith("certifi/") for name in names)
    dropped = dropped_at(tmp_path / "one")
    assert dropped["read"]["licence: MPL"] == sum(file.is_file() for file in (tmp_path / "in/certifi").rglob("*")) - 1
    core = next(record["text"] for record in kept if record["id"] == "click/core.py")
    assert core == (SITE / "click" / "core.py").read_text(), "code itself stays as it is"


def test_repository_that_changes(tmp_path, trees):
    from llama_jax.errors import DataError

    clean(trees, tmp_path / "out")
    (trees / "good" / "src" / "sort.py").write_text("changed = True\n")
    with pytest.raises(DataError, match="good has changed"):
        clean(trees, tmp_path / "out")
