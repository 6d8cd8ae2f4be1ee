"""Source files: which are code or documentation by their names, which are no text for people, and their licence headers."""

import re
from pathlib import PurePosixPath
from typing import Any

from llama_jax.clean.items import Dropped

MAX_SOURCE_BYTES = 1 << 20
"""Largest source file, in bytes (Codex, Chen et al. 2021, section 3.1: "under 1 MB")."""
MEAN_LINE, MAX_LINE = 100, 1000
"""Largest mean and maximal length of lines, in characters (Codex, the same section)."""
LEAST_ALPHANUMERIC = 0.25
"""Smallest share of letters and digits among the characters, as of CodeParrot and The Stack; Codex and LLaMA name no number."""

_EXTENSIONS = """
Ada: .ada .adb .ads Agda: .agda Assembly: .asm .s .nasm AWK: .awk Batch: .bat .cmd C: .c .h C#: .cs .csx Clojure: .clj .cljs
.cljc CMake: .cmake COBOL: .cob .cbl .cpy CoffeeScript: .coffee .cson C++: .cpp .cc .cxx .c++ .hpp .hh .hxx .h++ .inl .ipp .tpp
Crystal: .cr CSS: .css .scss .sass .less .styl CUDA: .cu .cuh Cython: .pyx .pxd .pxi D: .d .di Dart: .dart Elixir: .ex .exs Elm:
.elm Erlang: .erl .hrl Fortran: .f .f77 .f90 .f95 .f03 .f08 .for .fpp F#: .fs .fsi .fsx GLSL: .glsl .vert .frag .geom Go: .go
GraphQL: .graphql .gql Groovy: .groovy .gradle Hack: .hack Haskell: .hs .lhs .hsc HCL: .hcl .tf HLSL: .hlsl HTML: .html .htm
.xhtml Idris: .idr Java: .java JavaScript: .js .jsx .mjs .cjs .es6 Julia: .jl Kotlin: .kt .kts Lean: .lean Lisp: .lisp .lsp .el
.cl Lua: .lua Makefile: .mk .mak MATLAB: .m Metal: .metal Meson: .meson Nim: .nim .nims Nix: .nix Objective-C++: .mm OCaml: .ml
.mli OpenCL: .opencl Pascal: .pas .pp .dpr .lpr Perl: .pl .pm .t PHP: .php .phtml .php5 PowerShell: .ps1 .psm1 .psd1 Prolog:
.pro .prolog Protobuf: .proto Puppet: .epp Python: .py .pyw .pyi R: .r .rmd Racket: .rkt Reason: .re .rei Ruby: .rb .rake
.gemspec .erb Rust: .rs Scala: .scala .sc .sbt Scheme: .scm .ss .sld Shell: .sh .bash .zsh .fish .ksh Smalltalk: .st Solidity:
.sol SQL: .sql .psql Stan: .stan SML: .sml .sig Svelte: .svelte Swift: .swift SystemVerilog: .sv .svh Tcl: .tcl .tk Thrift:
.thrift TypeScript: .ts .tsx .mts .cts Vala: .vala Verilog: .v .vh VHDL: .vhd .vhdl Vim: .vim Visual-Basic: .vb .bas .vbs Vue:
.vue WebAssembly: .wat Zig: .zig AsciiDoc: .adoc .asciidoc Markdown: .md .markdown .mdx Org: .org reStructuredText: .rst TeX:
.tex .sty .bib Textile: .textile
"""
_PROSE = {"Markdown", "AsciiDoc", "Org", "Textile", "Text"}
"""Formats in which a line that begins with # or -- is no comment."""
_NAMES = {"makefile": "Makefile", "gnumakefile": "Makefile", "dockerfile": "Dockerfile", "rakefile": "Ruby", "gemfile": "Ruby",
          "cmakelists.txt": "CMake", "jenkinsfile": "Groovy", "vagrantfile": "Ruby", "meson.build": "Meson", "build": "Starlark",
          "build.bazel": "Starlark", "readme": "Text", "readme.txt": "Text", "sconstruct": "Python", "wscript": "Python"}
_MINIFIED = re.compile(r"[.-]min\.(js|css|mjs)$|\.bundle\.js$", re.IGNORECASE)


def _read_extensions() -> dict[str, str]:
    languages: dict[str, str] = {}
    language = ""
    for word in _EXTENSIONS.split():
        if word.endswith(":"):
            language = word[:-1]
        else:
            languages[word] = language
    return languages


LANGUAGES = _read_extensions()
"""End of a file's name -> the language of what it holds, among programming languages and formats of documentation."""


def language_of(path: str) -> str:
    """The programming language, or format of documentation, of a file by its name; raises Dropped for data and minified code."""
    file = PurePosixPath(path)
    language = _NAMES.get(file.name.lower()) or LANGUAGES.get(file.suffix.lower())
    if not language:
        raise Dropped("neither code nor documentation")
    if _MINIFIED.search(file.name):
        raise Dropped("minified")
    return language


def check_lines(text: str, metadata: dict[str, Any]) -> str:
    """Drop what people do not read as text, by the length of its lines and its share of letters and digits."""
    lines = text.splitlines() or [""]
    if max(map(len, lines)) > MAX_LINE:
        raise Dropped(f"a line over {MAX_LINE} characters")
    if sum(map(len, lines)) > MEAN_LINE * len(lines):
        raise Dropped(f"mean line over {MEAN_LINE} characters")
    if sum(map(str.isalnum, text)) < LEAST_ALPHANUMERIC * len(text):
        raise Dropped(f"less than {LEAST_ALPHANUMERIC:.0%} letters and digits")
    return text


_PROLOGUE = re.compile(r"""(?:\s*\n | \#!.*\n | <\?php\b[^\S\n]*\n? | <\?xml[^>]*>\s* | <!doctype[^>]*>\s* |
    \#.*coding[:=].*\n | [#;/"]*\s*-\*-.*-\*-.*\n)*""", re.IGNORECASE | re.VERBOSE)
"""What may stand before a header and is not part of it: the interpreter, the encoding, an editor's mode."""
_BLOCK_COMMENTS = {"/*": "*/", "<!--": "-->", "(*": "*)", "{-": "-}"}
_LINE_COMMENTS = (r"\#(?!!|[^\S\n]*(?:include|define|if|ifdef|ifndef|pragma|import|region)\b)", "//", "--", ";", "%", "!")
_COMMENT = re.compile("|".join([
    *(rf"{re.escape(begin)}.*?{re.escape(end)}[^\S\n]*\n?" for begin, end in _BLOCK_COMMENTS.items()),
    *(rf"(?:[^\S\n]*{mark}[^\n]*(?:\n|$))+" for mark in _LINE_COMMENTS),
    r"\.\. (?!\w+::)[^\n]*\n(?:[^\S\n]+[^\n]*\n|[^\S\n]*\n(?=[^\S\n]+\S))*",  # reStructuredText
]), re.DOTALL)
_COMMENT_IN_PROSE = re.compile(r"<!--.*?-->[^\S\n]*\n?", re.DOTALL)
_LEGAL = re.compile(r"""copyright\b.{0,40}(\d{4}|\bby\b|\bauthors\b|\bcontributors\b|\(c\)|©) | (\(c\)|©)\s*(copyright\s*)?\d{4} |
    all\ rights\ reserved | spdx-(licen[cs]e|filecopyright) | licen[cs]ed\ (under|to\ ) | permission\ is\ hereby\ granted |
    redistributions?\ (and\ use|of|in) | (under|to)\ the\ terms\ of | without\ (any\ )?warrant | warranties\ or\ conditions |
    express\ or\ implied | merchantab | the\ above\ copyright | see\ (the\ )?(accompanying\ )?(file\ )?licen[cs]e |
    licen[cs]e:?\ (is\ |apache|bsd|mit\b|version) | is\ governed\ by\ a | \b(apache|bsd|mit)\b[-\w ]{0,20}licen[cs]e\b |
    may\ not\ use\ this\ file | obtain\ a\ copy\ of\ the | endorse\ or\ promote | the\ copyright\ holders?""",
    re.IGNORECASE | re.VERBOSE)
_DECORATION = re.compile(r"^[\s/*#;%!|=+~<>(){}.-]+|[\s/*#;%!|=+~<>(){}-]+$")


def strip_header(text: str, metadata: dict[str, Any]) -> str:
    """Remove copyright notices and licences from the comments at the top of a source file; what else these say stays.

    From the first paragraph of a comment that speaks of rights to the last that does is removed.
    """
    one_comment = _COMMENT_IN_PROSE if metadata.get("language") in _PROSE else _COMMENT
    begin = _PROLOGUE.match(text).end()
    prologue, kept = text[:begin], []
    removed = False
    while match := one_comment.match(text, begin):
        comment, begin = match[0], match.end()
        rest = _without_notice(comment)
        removed |= rest != comment
        kept.append(rest)
        blank = re.match(r"(?:[^\S\n]*\n)*", text[begin:begin + 100])[0]
        begin += len(blank)
        kept.append(blank if rest else "")
    if not removed:
        return text
    return prologue.lstrip("\n") + ("".join(kept) + text[begin:]).lstrip("\n")


def _without_notice(comment: str) -> str:
    """A comment without the paragraphs about rights; empty where nothing else is said."""
    if not _LEGAL.search(_plain(comment)):
        return comment
    lines = comment.splitlines(keepends=True)
    paragraphs = _paragraphs(lines)
    legal = [number for number, (begin, end) in enumerate(paragraphs) if _LEGAL.search(_plain("".join(lines[begin:end])))]
    if not legal:
        return ""
    first, last = paragraphs[legal[0]][0], paragraphs[legal[-1]][1]
    opening = next((mark for mark in _BLOCK_COMMENTS if comment.lstrip().startswith(mark)), "")
    closing = _BLOCK_COMMENTS.get(opening, "")
    before, after = lines[:first], lines[last:]
    if not _says_something(before + after):
        return ""
    while len(before) > 1 and not _says_something(before[-1:]) and not _says_something(after):
        before = before[:-1]
    if opening:
        before = before if first > 0 else [opening + "\n"]
        after = after if last < len(lines) else [closing + "\n"]
    while after and not _says_something(after[:1]) and not (closing and closing in after[0]):
        after = after[1:]  # empty lines of a comment, which would be doubled
    return "".join(before + after)


def _paragraphs(lines: list[str]) -> list[tuple[int, int]]:
    """(first line, line after the last) of runs of lines that say something beside their decoration."""
    found: list[tuple[int, int]] = []
    for number, line in enumerate(lines):
        if not _says_something([line]):
            continue
        if found and found[-1][1] == number:
            found[-1] = (found[-1][0], number + 1)
        else:
            found.append((number, number + 1))
    return found


def _says_something(lines: list[str]) -> bool:
    """Whether lines of a comment hold more than its decoration."""
    return any(_DECORATION.sub("", line.strip()) for line in lines)


def _plain(comment: str) -> str:
    """The words of a comment on one line."""
    return " ".join(word for line in comment.splitlines() for word in _DECORATION.sub("", line.strip()).split())
