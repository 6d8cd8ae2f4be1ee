"""Papers of arXiv: the real source of emcee against what was read in it, and archives of all shapes, damaged and hostile too."""

import gzip
import io
import json
import re
import tarfile
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from llama_jax.clean import InputFile, Workplace, collect_counts, run_stages
from llama_jax.clean import paper_files as paper_files_module
from llama_jax.clean import papers as papers_module
from llama_jax.clean.arxiv import keep_body, recipe
from llama_jax.clean.items import DamagedInput, Dropped
from llama_jax.clean.latex_macros import expand_macros
from llama_jax.clean.latex_tokens import join_tokens, tokenize_latex
from llama_jax.clean.latex_verbatim import remove_comments, split_latex
from llama_jax.clean.paper_files import join_paper
from llama_jax.clean.papers import arxiv_id, read_papers
from llama_jax.cli.clean_options import CleanOptions

PAPER = "\\documentclass{article}\n\\begin{document}\n\\section{One}\ntext of %s\n\\end{document}\n"


def clean(files, output: Path, *, workers: int = 1) -> tuple[list[dict], dict[str, int]]:
    """The documents, and what was dropped."""
    place = Workplace([InputFile(Path(file), Path(file).name) for file in files], output)
    run_stages(recipe(place, CleanOptions("arxiv", (), str(output))), place, settings={}, workers=workers)
    lines = [line for file in sorted(output.glob("*.jsonl.zst")) for line in io.TextIOWrapper(zstandard.open(file, "rb"))]
    return [json.loads(line) for line in lines], {
        reason: count for step in collect_counts(output) for reason, (count, _) in step.dropped.items()}


def tar_of(files: dict[str, str | bytes], mode: str = "w") -> bytes:
    """An archive; mode "w:gz" compresses it."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=mode) as archive:
        for name, data in files.items():
            data = data.encode() if isinstance(data, str) else data
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return target.getvalue()


@pytest.fixture(scope="module")
def emcee(shared_data, tmp_path_factory):
    """(source, document) of the real paper."""
    file = shared_data / "corpus" / "arxiv" / "emcee_1202.3665.tex"
    documents, dropped = clean([file], tmp_path_factory.mktemp("emcee") / "out")
    assert not dropped
    return file.read_text(), documents[0]


def test_emcee_begins_at_its_first_section_and_ends_with_its_appendices(emcee):
    _, document = emcee
    assert document["metadata"] == {"arxiv_id": "1202.3665", "main_file": "emcee_1202.3665.tex", "missing_files": [],
                                    "title": "emcee: The MCMC Hammer"}
    text = document["text"]
    assert text.startswith("\\section{Introduction}\n\nProbabilistic data analysis---including Bayesian inference---has\n")
    assert text.endswith("documentation on the website \\url{http://dan.iel.fm/emcee}. This page includes\n"
                         "the API documentation and many examples of possible work flows.")
    assert re.findall(r"\\section\{([^}]*)\}", text) == [
        "Introduction", "The Algorithm", "Tests", "Discussion \\& Tips", "Installation", "Issues \\& Contributions",
        "Online Documentation"]
    for gone in ("bibitem", "thebibliography", "Akeret, J.", "abstract", "\\begin{document}", "\\end{document}", "newcommand"):
        assert gone not in text


def test_emcee_has_its_macros_expanded_and_no_comments(emcee):
    source, document = emcee
    text = document["text"]
    macros = set(re.findall(r"\\(?:re)?newcommand\{(\\[A-Za-z]+)\}", source))
    assert len(macros) == 56
    assert not macros & set(re.findall(r"\\[A-Za-z]+", text))
    for line in ("{\\sffamily emcee} package will perform better than any home-built M--H code (for",
                 "decisions made in {\\sffamily emcee}. We also describe the small changes",
                 "autocorrelation time (with, say, {\\sffamily acor}), it will give you a time that",
                 "There are some cases where {\\sffamily emcee} won't perform as well as some",
                 "\\section{The Algorithm}\\label{sect:algo}",
                 "the proposal of Equation~(\\ref{eq:proposal}) is symmetric. In this case, the chain will",
                 "($S^{(0)} = \\{ X_k, \\, \\forall k = 1, \\ldots, K/2 \\}$ and",
                 "    \\left<f(\\ensuremath{\\Theta})\\right> = \\int",
                 "    \\STATE Draw a walker $X_j$ at random from the complementary ensemble $S_{[k]}(t)$",
                 "% pip install emcee", "% python setup.py install"):
        assert f"\n{line}\n" in text, line
    assert sorted(line for line in text.split("\n") if re.search(r"(?<!\\)%", line)) == [
        "% pip install emcee", "% python setup.py install"]  # in listings


def test_emcee_loses_no_other_line(emcee):
    """Every line of the body without a macro and without a comment is there, in order."""
    source, document = emcee
    body = source[source.index("\\section{Introduction}"):source.index("\\begin{thebibliography}")]
    body += source[source.index("\\clearpage\n\\appendix"):source.index("\\end{document}")]
    macros = re.findall(r"\\(?:re)?newcommand\{\\([A-Za-z]+)\}", source)
    plain = re.compile(r"\\(?:" + "|".join(macros) + r")(?![A-Za-z])")
    kept = iter(document["text"].split("\n"))
    lines = [line for before, line in pairwise(["", *body.split("\n")])
             if line.strip() and "%" not in line and not before.endswith("%") and not plain.search(line)]
    assert len(lines) == 440
    for line in lines:
        assert line in kept, line


@pytest.mark.parametrize(("source", "text"), [
    (r"100\% of % that" + "\n  all", r"100\% of all"),
    ("affine-%\n    invariant", "affine-invariant"),
    ("one\n% a\n   % b\ntwo", "one\ntwo"),
    ("end % of a paragraph\n\nnext", "end \n\nnext"),
    (r"\\% after a line break" + "\nnext", r"\\next"),
    (r"\verb|%|, \verb*+%+ and \lstinline[a=b]{%} % gone" + "\nx", r"\verb|%|, \verb*+%+ and \lstinline[a=b]{%} x"),
    ("\\begin{verbatim}\n% stays\n\\end{verbatim}\n% goes\nx", "\\begin{verbatim}\n% stays\n\\end{verbatim}\nx"),
    ("% \\begin{verbatim}\nx % y\nz", "x z"),
    ("a\n\\begin{comment}\n\\end{verbatim} b\n\\end{comment}\nc", "a\nc"),
    ("\\begin{filecontents*}{a.bib}\n@article\n\\end{filecontents*}\nc", "c"),
    (r"\url{http://a.b/%7Ec} and \href{http://a.b/%20}{d} % gone", r"\url{http://a.b/%7Ec} and \href{http://a.b/%20}{d} "),
    ("a\n\\iffalse b \\ifx c\\fi $d \\iff e$ % \\fi\n\\fi\nf", "a\nf"),
    (r"\iffalse a\else b\fi c", " b c"),
    (r"\iffalse without end", r"\iffalse without end"),
    ("\\begin{verbatim} without end % gone", "\\begin{verbatim} without end "),
    ("% all of it", ""), ("", "")])
def test_comments(source, text):
    assert remove_comments(source) == text


PARTS = st.lists(st.sampled_from(
    ["\\alpha", "\\x", "\\", "\\ ", "\\{", "é", "a", "b c", "1", " ", "\n", "\n\n", "{", "}", "[", "]", "%", "$", "#1", "*",
     "@", "~", "\\verb|", "\\begin{verbatim}", "\\end{verbatim}", "\\makeatletter",
     "\\iffalse", "\\fi", "\\begin{comment}", "\\end{comment}"]))
DEFINITIONS = st.lists(st.sampled_from(
    ["\\newcommand{\\x}[2][b]", "\\def\\x#1", "\\def\\a#1;", "\\let\\x\\a", "{", "}", "\\x", "\\a", "#1", "\\xspace", " ", "b",
     ";", "[", "]", "\\global", "\\newcommand", "\\DeclareMathOperator", "*", "\\def", "\\let", "="]))


@given(PARTS)
def test_sources_without_definitions_stay_as_they_are(parts):
    source = "".join(parts)
    assert "".join(piece for _, piece in split_latex(source)) == source
    assert join_tokens(tokenize_latex(source)) == source
    assert expand_macros(source) == source
    remove_comments(source)


@example([], [r"\newcommand{\x}[2][b]", r"\let\x\a", r"\def\a#1;"])  # the text ends within the delimiter ";\newcommand"
@given(PARTS, DEFINITIONS)
def test_every_source_gives_a_text_or_is_dropped(parts, definitions):
    with suppress(Dropped):
        expand_macros("".join([*definitions, *parts, *definitions]))


@pytest.mark.parametrize(("source", "text"), [
    # spaces after a name
    (r"\newcommand{\emcee}{emcee}\emcee\ is, \emcee's, \emcee{} x, (\emcee), \emcee.",
     "emcee is, emcee's, emcee x, (emcee), emcee."),
    (r"\newcommand{\this}{emcee}\this is", "emceeis"),
    ("\\newcommand{\\k}{Kepler}of \\k\\\n     data", "of Kepler\n     data"),
    (r"\newcommand{\R}{\mathbb{R}}$x \in \R \subset y$", r"$x \in \mathbb{R} \subset y$"),
    (r"\newcommand{\e}{emcee\xspace}\e is \e, \e\ x \e{} y (\e) \e(z) {\e}",
     "emcee is emcee, emcee x emcee y (emcee) emcee (z) {emcee}"),
    (r"\newcommand{\al}{\alpha}$\al x \al2 \al{}b$ \al{} c", r"$\alpha x \alpha2 \alpha{}b$ \alpha{} c"),
    (r"\newcommand{\dd}{\mathrm{d}}\newcommand{\bd}{\partial}$\dd x\bd y\bd\dd z$",
     r"$\mathrm{d} x\partial y\partial\mathrm{d} z$"),
    ("\\newcommand{\\x}{y}\n\\x\n\nnext \\x\n\\begin{quote}", "y\n\nnext y\n\\begin{quote}"),
    # arguments
    (r"\newcommand{\pr}[2]{p(#1|#2)}\pr{a}{b} \pr ab \pr{a}b \pr{\pr{a}{b}}c \pr\alpha\beta",
     r"p(a|b) p(a|b) p(a|b) p(p(a|b)|c) p(\alpha|\beta)"),
    (r"\newcommand\v[2][d]{(#1,#2)}\v{x} \v[y]{x} \v [{]}] {w} \v ab", "(d,x) (y,x) (],w) (d,a)b"),
    (r"\newcommand*{\k}[1]{\textbf{#1}}\k {a b} c \k word", r"\textbf{a b} c \textbf{w}ord"),
    (r"\def\a#1#2{[#2,#1]}\a xyz \a{12}{3}", "[y,x]z [3,12]"),
    (r"\def\p(#1,#2){<#1|#2>}\p(a,b) \p({a,b},{c}) \p x", r"<a|b> <a,b|c> \p x"),
    (r"\long\def\g <#1>{[#1]}\g <a> \g <{b>}>", "[a] [b>]"),
    (r"\newcommand{\x}[2]{#1}\x{unfinished", r"\x{unfinished"),
    # one macro in another
    (r"\newcommand{\f}[1]{\e{#1}}\newcommand{\e}[1]{<#1>}\newcommand{\h}{\e}\f{a} \h{b}", "<a> <b>"),
    (r"\newcommand{\a}{\b\b}\newcommand{\b}{\c\c}\newcommand{\c}{x}\a", "xxxx"),
    (r"\def\x{\y}\def\y{2}\x\def\y{3}\x", "23"),
    # definitions of all kinds
    (r"\let\eps\varepsilon\let\al=\alpha$\eps_1 \al b$", r"$\varepsilon_1 \alpha b$"),
    (r"\let\old\vec\renewcommand{\vec}[1]{\old{\mathbf{#1}}}$\vec{x}$", r"$\vec{\mathbf{x}}$"),
    (r"\def\a{1}\let\b\a\def\a{2}\a\b", "21"),
    (r"\DeclareMathOperator{\Tr}{Tr}\DeclareMathOperator*{\am}{arg\,min}$\Tr x \am_x$",
     r"$\operatorname{Tr} x \operatorname*{arg\,min}_x$"),
    (r"\providecommand{\k}{1}\providecommand{\k}{2}\k", "1"),
    (r"\global\long\def\z#1{Z#1}\gdef\y{Y}\z{1}\y", "Z1Y"),
    ("\\def\\be{\\begin{equation}}\\def\\ee{\\end{equation}}\nwe have\n\\be\nx=1\n\\ee\nwhere \\be y \\ee z",
     "we have\n\\begin{equation}\nx=1\n\\end{equation}\nwhere \\begin{equation} y \\end{equation} z"),
    # what is left alone
    (r"\newcommand{\x}{\x a}\x", r"\x a"),
    (r"\newcommand{\f}[1]{\f{\f{#1}}}\f{x}", r"\f{\f{x}}"),
    (r"\def\a{\b}\def\b{\a}\a.", r"\a."),
    (r"\renewcommand{\section}{\clearpage}\section{a}", r"\section{a}"),
    (r"\newcommand{\s}{\ifx a\else b\fi}\s", r"\s"),
    (r"\makeatletter\def\i@a#1{<#1>}\newcommand{\s}{\@ifstar{a}{b}}\i@a{x}\makeatother \s*",
     r"\makeatletter<x>\makeatother \s*"),
    (r"\edef\a{b}\a", r"\a"),
    (r"\NewDocumentCommand{\d}{m}{#1}\d{a}", r"\NewDocumentCommand{\d}{m}{#1}\d{a}"),
    (r"\newcommand{\m}{a\verb|\m|b}\m", r"a\verb|\m|b"),
    ("\\begin{verbatim}\n\\newcommand{\\a}{b}\n\\end{verbatim}\\a",
     "\\begin{verbatim}\n\\newcommand{\\a}{b}\n\\end{verbatim}\\a"),
    # no false paragraphs
    ("one\n\\newcommand{\\x}{y}\n\\newcommand{\\hide}[1]{}\n\\hide{remark}\ntwo\n\n\\def\\q{}\n\nthree", "one\ntwo\n\n\n\nthree"),
])
def test_macros(source, text):
    assert expand_macros(source) == text


@pytest.mark.parametrize("source", [
    "".join(rf"\newcommand{{\{chr(97 + n)}}}{{\{chr(98 + n)}\{chr(98 + n)}}}" for n in range(25)) + r"\a",
    r"\newcommand{\f}[1]{" + "#1" * 20_000 + r"}\f{" + "x" * 20_000 + "}",
    r"\newcommand{\f}[1]{#1}" + r"\f{" * 1_000 + "}" * 1_000])
def test_macros_that_grow_or_nest_without_end_drop_the_paper(source, monkeypatch):
    monkeypatch.setattr("llama_jax.clean.latex_macros._SMALL", 20_000)
    with pytest.raises(Dropped, match="macros that"):
        expand_macros(source)


@pytest.mark.parametrize("unit", ["\\f{", "\\f[", "\\g(", "\\begin{verbatim}", "\\verb|", "\\iffalse ", "{", "\\newcommand{\\x",
                                  "\\input{", "\\documentclass[", "\\begin{thebibliography}", "\\lstinline[", " " * 9,
                                  "\\section", "\\title{"])
def test_time_does_not_grow_with_the_square_of_the_length(unit):
    source = r"\newcommand{\f}[2][d]{#1}\def\g(#1){#1}" + unit * 5_000
    start = time.process_time()
    for edit in (remove_comments, expand_macros, lambda text: keep_body("\\section{a}" + text, {}),
                 lambda text: join_paper({"a.tex": "\\documentclass{a}" + text})):
        edit(source)
    assert time.process_time() - start < 10


@pytest.mark.parametrize(("source", "text"), [
    ("x\\begin{document}a\\section*{A}b  \n\n\n\nc\\end{document}d", "\\section*{A}b\n\nc"),
    ("\\section{A}\n\\begin{thebibliography}{9}\\bibitem{x} y\\end{thebibliography}\n\\appendix\n\\section{B} c",
     "\\section{A}\n\n\\appendix\n\\section{B} c"),
    ("\\chapter[s]{A} \\cite{x}\n\\bibliographystyle{plain}\n\\bibliography{a,b}", "\\chapter[s]{A} \\cite{x}"),
    ("\\section{A} x\n\\section*{References}\n\\printbibliography[heading=none]", "\\section{A} x"),
    ("\\section{A} x\n\\begin{references} y without end", "\\section{A} x"),
    ("\\titleformat{\\section}{\\large}\n\\section [short] {A}", "\\section [short] {A}"),
    ("\\section{A}\n\\begin{verbatim}\n\n\n\n  x  \n\\end{verbatim}",
     "\\section{A}\n\\begin{verbatim}\n\n\n\n  x  \n\\end{verbatim}")])
def test_body(source, text):
    assert keep_body(source, {}) == text


@pytest.mark.parametrize("source", ["", "a letter without any", "\\section*{References}\n\\bibliography{a}", "\\subsection{A}"])
def test_no_section(source):
    with pytest.raises(Dropped, match="no section"):
        keep_body(source, {})


@pytest.mark.parametrize(("source", "title"), [
    (r"\title[Short]{On the {\em Ising} model\\ of G\"odel \& $x^2$}", "On the Ising model of Gödel & x^2"), ("", ""),
    (r"\title{without end", ""), (r"\title{" + "{" * 200 + "}" * 200 + "}", "")])
def test_titles(source, title):
    metadata = {}
    keep_body(source + "\\section{A}", metadata)
    assert metadata["title"] == title


def test_inputs_are_resolved_and_missing_ones_left_out():
    main, text, missing = join_paper({
        "ms.tex": "\\documentclass{a}\n\\input{macros}\n%\\input{old}\n"
                  "\\begin{document}\\include{sec/one} and \\input sec/two.tex\n"
                  "\\verb|\\input{old}| \\import{sec/}{three}\\input{gone}\\input{/etc/passwd}\\input{../x}\n\\end{document}",
        "macros.tex": "\\def\\x{y}\n% end", "sec/one.tex": "ONE\n", "old.tex": "OLD",
        "sec/two.tex": "TWO \\input{three}\\endinput no",
        "sec/three.tex": "\\documentclass{subfiles}\\begin{document}THREE\\end{document}"})
    assert (main, missing) == ("ms.tex", {"gone", "/etc/passwd", "../x"})
    assert text == ("\\documentclass{a}\n\\def\\x{y}\n\n%\\input{old}\n\\begin{document}ONE and TWO THREE\n"
                    "\\verb|\\input{old}| THREE\n\\end{document}")


def test_inputs_in_circles_and_those_that_grow(monkeypatch):
    _, text, missing = join_paper({"a.tex": "\\documentclass{x}a\\input{b}",
                                   "b.tex": "b\\input{a}\\input{b}\\input{c}", "c.tex": "c"})
    assert (text, missing) == ("\\documentclass{x}abc", {"a", "b"})
    files = {f"{n}.tex": f"\\input{{{n + 1}}}\\input{{{n + 1}}}" for n in range(1, 18)}
    monkeypatch.setattr(paper_files_module, "LARGEST_TEXT", 1 << 16)
    with pytest.raises(Dropped, match="of TeX"):
        join_paper({"0.tex": "\\documentclass{x}\\input{1}", **files, "18.tex": "x"})


def test_the_main_file_is_the_longest_paper_and_no_figure():
    files = {"reply.tex": "\\documentclass{letter}x", "ms.tex": "\\documentstyle[12pt]{aa}\\input{long}",
             "fig.tex": "\\documentclass[tikz]{standalone}" + "x" * 500, "long.tex": "y" * 100,
             "no.tex": "% \\documentclass{a}" + "x" * 900}
    assert join_paper(files)[0] == "ms.tex"
    with pytest.raises(Dropped, match="no \\\\documentclass"):
        join_paper({"a.tex": "\\section{x}"})
    with pytest.raises(Dropped, match="no TeX source"):
        join_paper({})


def test_papers_of_all_formats(tmp_path):
    """A bulk archive as arXiv has them: papers of one file and of several, PDFs, damaged ones; and papers alone."""
    latin = "\\documentclass{article}\r\n\\section{Größe}\r\n% weg\r\nÄpfel".encode("latin-1")
    several = tar_of({"./ms.tex": "\\documentclass{a}\\section{S}\\input{x}", "./x.tex": "Größe", "f.eps": b"\0" * 9000}, "w:gz")
    cut = gzip.compress(PAPER.encode() * 99)[:50]
    bulk = tar_of({"1001/1001.0001.gz": gzip.compress(latin), "1001/1001.0002.pdf": b"%PDF-1.4 ...", "1001/1001.0003.gz": several,
                   "1001/1001.0004.gz": cut, "1001/1001.0005.gz": gzip.compress(b"%PDF"),
                   "1001/math0101001.gz": gzip.compress(b"\0x"),
                   "1001/1001.0006.gz": gzip.compress(b"Dear editor")})
    (tmp_path / "arXiv_src_1001_001.tar").write_bytes(bulk)
    (tmp_path / "2302.13971v1.tar.gz").write_bytes(several)
    (tmp_path / "hep-th9901001.gz").write_bytes(gzip.compress((PAPER % "gz").encode()))
    (tmp_path / "plain.tex").write_bytes(b"\xef\xbb\xbf" + (PAPER % "a BOM").encode())
    (tmp_path / "one.tar").write_bytes(tar_of({"a.tex": PAPER % "tar", "figure.pdf": b"%PDF", "data.gz": b""}))
    (tmp_path / "only.pdf").write_bytes(b"%PDF-1.5")
    (tmp_path / "empty.tex").write_bytes(b"")
    documents, dropped = clean(sorted(tmp_path.glob("*.*")), tmp_path / "out")
    assert {document["id"]: (document["text"], document["metadata"]["arxiv_id"]) for document in documents} == {
        "2302.13971v1.tar.gz": ("\\section{S}Größe", "2302.13971"),
        "arXiv_src_1001_001.tar/1001/1001.0001": ("\\section{Größe}\nÄpfel", "1001.0001"),
        "arXiv_src_1001_001.tar/1001/1001.0003": ("\\section{S}Größe", "1001.0003"),
        "hep-th9901001.gz": ("\\section{One}\ntext of gz", "hep-th/9901001"),
        "one.tar": ("\\section{One}\ntext of tar", ""),
        "plain.tex": ("\\section{One}\ntext of a BOM", "")}
    assert dropped == {"no TeX source": 4, "a damaged archive of a paper": 1, "binary": 1, "no \\documentclass": 1}


@pytest.mark.slow
def test_output_does_not_depend_on_workers(tmp_path):
    for number in range(6):
        (tmp_path / f"{number}.tex").write_text(PAPER % number)
    files = sorted(tmp_path.glob("*.tex"))
    clean(files, tmp_path / "one")
    clean(files, tmp_path / "four", workers=4)
    names = sorted(file.name for file in (tmp_path / "one").glob("*.zst"))
    assert len(names) == 6
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "four" / name).read_bytes()


def test_damaged_archives(tmp_path):
    bulk = tar_of({"a/1001.0001.gz": gzip.compress((PAPER % "first").encode()), "a/1001.0002.gz": gzip.compress(b"x" * 9999)})
    (tmp_path / "bulk.tar").write_bytes(bulk[:1024 + 300])
    reader = read_papers(tmp_path / "bulk.tar")
    assert next(reader).id == "a/1001.0001"
    with pytest.raises(DamagedInput, match="damaged archive"):
        next(reader)
    (tmp_path / "cut.tar.gz").write_bytes(tar_of({"a.tex": PAPER % "x" * 900}, "w:gz")[:100])
    (tmp_path / "cut.gz").write_bytes(gzip.compress((PAPER % "x").encode())[:30])
    for name in ("cut.tar.gz", "cut.gz"):
        with pytest.raises(DamagedInput, match="damaged archive"):
            list(read_papers(tmp_path / name))


def test_bombs_are_refused(tmp_path, monkeypatch):
    def reasons(data: bytes) -> list[str]:
        (tmp_path / "x.gz").write_bytes(data)
        return [str(item) for item in read_papers(tmp_path / "x.gz")]

    monkeypatch.setattr(papers_module, "LARGEST_PAPER", 1 << 20)
    assert reasons(tar_of({"a.eps": b"0" * (2 << 20), "ms.tex": PAPER}, "w:gz")) == ["an archive of more than 1 MiB"]
    monkeypatch.setattr(papers_module, "LARGEST_PAPER", 64 << 20)
    assert reasons(gzip.compress(b"x" * (9 << 20))) == ["more than 8 MiB of TeX"]
    assert reasons(tar_of({"a.tex": b"x" * (5 << 20), "b.tex": b"x" * (5 << 20)}, "w:gz")) == ["more than 8 MiB of TeX"]
    monkeypatch.setattr(papers_module, "MOST_FILES", 5)
    assert reasons(tar_of({f"{n}.tex": "" for n in range(6)}, "w:gz")) == ["an archive of more than 5 files"]


def test_nothing_outside_of_an_archive_is_read(tmp_path):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as archive:
        for name, kind, link in (("secret.tex", tarfile.SYMTYPE, "/etc/hostname"), ("../up.tex", tarfile.REGTYPE, "")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            archive.addfile(member)
        data = rb"\documentclass{a}\section{A}\input{secret}\input{../up}x"
        member = tarfile.TarInfo("ms.tex")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    (tmp_path / "x.tar.gz").write_bytes(target.getvalue())
    (paper,) = read_papers(tmp_path / "x.tar.gz")
    assert paper.text.endswith("{A}x")
    assert paper.metadata["missing_files"] == ["../up", "secret"]


@pytest.mark.parametrize(("name", "expected"), [
    ("emcee_1202.3665.tex", "1202.3665"), ("2302.13971v1.tar.gz", "2302.13971"), ("9901/hep-th9901001.gz", "hep-th/9901001"),
    ("math.GT/0309136", "math/0309136"), ("cond-mat_0102003.gz", "cond-mat/0102003"), ("1399.0001.gz", ""),
    ("paper1234567.tex", "")])
def test_arxiv_ids(name, expected):
    assert arxiv_id(name) == expected
