"""MATH answers: normal forms and equivalence, on answers of real problems and on other ways to write them."""

import json
import time

import pytest

from llama_jax.evaluation.grading.expression import same_value
from llama_jax.evaluation.grading.latex import boxed_answer, equivalent_answers, normal_form
from llama_jax.evaluation.grading.published_forms import hendrycks_form, minerva_form

REAL = {  # problem: its answer, and what else is right
    "algebra/2": (r"\frac{1}{2}", ["1/2", "0.5", ".5", r"\dfrac12", "$\\frac{1}{2}$", "x = \\frac 12", "2^{-1}"]),
    "precalculus/5": (r"\left( -\frac{1}{4}, -2 \right)", [r"(-\frac14,-2)", "(-0.25, -2)", r"\left(-\frac{1}{4},-2\right)"]),
    "number_theory/1": ("499", ["499", "$499$", "499 \\text{ units}", "499.0", "500 - 1"]),
    "intermediate_algebra/0": (r"\sqrt{74}", ["74^{1/2}", r"\frac{\sqrt{296}}{2}"]),
    "counting_and_probability/3": (r"\frac{8}{63}", ["8/63", r"\frac{16}{126}"]),
    "geometry/0": (r"\frac34", ["0.75", r"\frac{3}{4}", "75/100"]),
    "prealgebra/9": (r"362,\!880", ["362880", "362,880", "9 \\cdot 8 \\cdot 7 \\cdot 720"]),
    "precalculus/12": (r"\begin{pmatrix} 11 \\ -36 \\ -3 \end{pmatrix}", [r"\begin{pmatrix}11\\-36\\-3\end{pmatrix}"]),
}


@pytest.mark.parametrize("name", REAL)
def test_real_answers(name, shared_data):
    gold, others = REAL[name]
    assert boxed_answer(json.loads((shared_data / f"eval/math/test/{name}.json").read_text())["solution"]) == gold
    assert equivalent_answers(gold, gold)
    for other in others:
        assert equivalent_answers(other, gold) and equivalent_answers(gold, other), other
    for number in "1", "-1", "0", "7", "x", r"\frac{2}{3}":
        assert not equivalent_answers(number, gold), number


def test_every_real_answer_equals_itself_and_no_other(shared_data):
    files = sorted((shared_data / "eval/math/test").glob("*/*.json"))
    golds = [boxed_answer(json.loads(file.read_text())["solution"]) for file in files]
    assert len(golds) == 28 and all(golds)
    same = {(a, b) for a in golds for b in golds if equivalent_answers(a, b)}
    assert same == {(a, b) for a in golds for b in golds if a.replace(" ", "") == b.replace(" ", "")}


@pytest.mark.parametrize("one, other", [
    ("x^2-1", "(x-1)(x+1)"), ("2x-3", "-3+2x"), (r"\frac{x}{2}", "0.5x"), (r"3\frac{1}{2}", "3.5"), (r"\sqrt{8}", r"2\sqrt2"),
    ("6-5i", "-5i+6"), (r"\sqrt[3]{-27}", "-3"), (r"\frac{\pi}{2}", r"\pi/2"), ("90^\\circ", "90"), ("50\\%", "50"),
    (r"12\text{ cm}", "12"), ("\\$18", "18"), ("[2,5)", "[2, 5)"), (r"\text{east}", "east"), ("10,000", "10000"),
    (r"2\pi\text{ feet}", r"2\pi"), ("y = 2x", "2x"), (r"\sin{\frac{\pi}{6}}", "0.5"), ("e^{-x}", r"\frac{1}{e^x}"),
    ("5 square units", "5"), (r"\frac{-2}{3}", r"-\frac{2}{3}"),
    # large numbers, exactly
    ("2^{32}", "4294967296"), ("10^{12}+1", "1,000,000,000,001"), (r"2^{40}\sqrt2", r"1099511627776\sqrt{2}"),
    ("12345678901234567890 + 1", "12345678901234567891"), ("1" + "0" * 150, "10^{150}"), ("20!", "2432902008176640000"),
    # the same thing with and without braces
    ("2516_8", "2516_{8}"), ("(2516)_8", "2516_{8}"), (r"2516_{\text{8}}", "2516_8"), ("1A0_16", "1A0_{16}"), ("x_1", "x_{1}"),
    (r"\log_2 8", r"\log_{2}{8}"), ("x^2y", "x^{2}y"), (r"\frac1{72}", r"\frac{1}{72}"), (r"0.\overline3", r"0.\overline{3}"),
    # names before an equals sign, and sums with their value
    ("x_{1} = 5", "5"), (r"\theta=30^\circ", "30"), ("f(x) = x^2", "x^2"), ("AB = 7", "7"), (r"\text{Area} = 12", "12"),
    (r"\angle ABC = 40", "40"), ("n = 2 + 3 = 5", "5"), ("2 + 3 = 5", "5"), ("x=1, y=2", "1,2"), ("(x = 1, y = 2)", "(1,2)"),
    # equations and inequalities, side by side
    ("5x - 7y + 11z + 4 = 0", "5x+11z-7y+4=0"), (r"x \le 5", "x <= 5"), (r"\{1,\frac12\}", r"\left\{1, 0.5\right\}"),
    (r"\begin{pmatrix} 0.5 \\ 1 \end{pmatrix}", r"\begin{pmatrix} \frac{1}{2} \\ 1 \end{pmatrix}"),
    (r"(-\infty,1)\cup(2.0,\infty)", r"\left(-\infty, 1\right) \cup (2, \infty)"),
    # values
    (r"-3\frac{1}{2}", "-3.5"), (r"\binom{5}{2}", "10"), ("|-5|", "5"), (r"\sin 2x", r"\sin(2x)"),
    (r"1\pm\sqrt2", r"1\mp\sqrt{2}"),
    (r"\pi r^2", r"r^2 \pi"), (r"0.1\overline{6}", r"\frac16"), (r"e^{i\pi}", "-1"), ("1,234.50", "1234.5"), ("xyz", "zyx"),
    # dress
    (r"$\boxed{x = 5}$", "5"), (r"\(7\)", "7"), ("50%", r"50\%"), ("the answer is $12$ cm", "12"), (r"5\text{ birds", "5"),
    (r"\text{square}", "square"), (r"\\frac{1}{2} + 1", "1.5")])
def test_equivalent(one, other):
    assert equivalent_answers(one, other) and equivalent_answers(other, one)


@pytest.mark.parametrize("one, other", [
    ("[2,5)", "(2,5)"), (r"\sqrt74", r"\sqrt{74}"),
    ("0,1", "01"), ("(1,2)", "(2,1)"), ("(1,2)", "(1,2,3)"), (r"\text{east}", r"\text{seat}"), ("AB", "BA"),
    ("1/0", "2/0"), ("1", "1.0000001"), ("0.333", r"\frac{1}{3}"), ("2516_8", "2516"), (r"\sqrt{x^2}", "x"), ("x", "y"),
    ("((((", "1"), (r"\frac{3}{", "3"), ("10^{400}", "10^{401}"), ("", ""), ("$$", "$$"), (None, None), (None, "1"),
    ("(" * 5000 + "1", "1"), ("9^{9^{9^{9}}}", "1"), ("3.14", r"\pi"), ("-1", "1"),
    # large numbers, exactly
    ("1000000000", "1000000001"), ("2^{32}", "4294967295"), ("123456789012", "123456789013"), ("9" * 200, "9" * 199 + "8"),
    ("(10000000000,1)", "(10000000001,1)"), ("10000000000+i", "10000000001+i"), (r"10^{12}+\sqrt2", r"10^{12}+1+\sqrt2"),
    ("x^2+1000000000000", "x^2+1000000000001"), ("0.3333333333333333", r"\frac13"), ("1.4142135623730951", r"\sqrt2"),
    (r"\frac{10000000000}{3}", r"\frac{10000000001}{3}"), ("10^{12}x", "(10^{12}+1)x"),
    # numbers in another base are no products, no values and not their digits
    ("2516_8", "2516_9"), ("5B0A_{12}", "51D0_{15}"), ("5B0A", "0"), ("11_2", "3"), ("2516_{8}", "2517_{8}"),
    # a left side that is more than a name
    ("5x - 7y + 11z + 4 = 0", "x + y - z + 2 = 0"), ("5x - 7y = 0", "0"), ("2x = 10", "10"), ("xy = 6", "6"), ("x^2 = 4", "4"),
    ("2x=10", "3x=10"), (r"\frac{a}{b} = 3", "3"), ("x+y=5", "x-y=5"), ("2 + 3 = 6", "6"), ("x=3, y=2", "x=1, y=2"),
    ("x=1, y=2", "2"),
    ("x<=5", "x>=5"), ("x<=5", "5"), (r"x \ne 5", "5"), ("$3$ or $5$", "3"), ("-$5$", "5"),
    # what a form takes for a unit or an article
    (r"\text{ east}", r"\text{ west}"), (r"3\text{ or }5", r"3\text{ or }7"), (r"5\text{ a }6\text{ b}", "5"), ("2a + b",
    "2 + b"),
    (r"0.\overline{3}", "0.3"), (r"0.1\overline{6}", r"0.\overline{16}"), (r"\pm 2", "2"), (r"3\frac12", r"\frac32")])
def test_not_equivalent(one, other):
    assert not equivalent_answers(one, other) and not equivalent_answers(other, one)


@pytest.mark.parametrize("text, form", [  # each from the rules of Minerva's appendix D by hand
    ("x = 12 \\text{ cm}", "12"), ("\\frac12", "\\frac{1}{2}"), ("\\sqrt3", "\\sqrt{3}"), ("the answer is $5$ dollars", "5"),
    ("\\boxed{7}", "7"), ("3\\text{ and }4", "3,4"), ("1,234,567", "1234567"), ("12,34", "12,34"), ("\\left(1,2\\right)",
                                                                                          "\\left(1,2\\right)"),
    ("2\\pi cm", "2\\pi"), ("\\textbf{(A)}", "(A)"), ("90^{\\circ}", "90")])
def test_minerva_form(text, form):
    assert minerva_form(text) == form


@pytest.mark.parametrize("text, form", [
    ("\\tfrac34", "\\frac{3}{4}"), ("\\frac1{72}", "\\frac{1}{72}"), ("k = 7", "7"), (".5", "\\frac{1}{2}"),
    ("7/8", "\\frac{7}{8}"), ("5 \\text{ units}", "5"), ("\\left(1, 2\\right)", "(1,2)"), ("50\\%", "50"),
    ("\\sqrt3", "\\sqrt{3}"), ("10\\!000", "10000")])
def test_hendrycks_form(text, form):
    assert hendrycks_form(text) == form


def test_boxed():
    assert boxed_answer("so $\\boxed{1}$ or $\\boxed{\\frac{1}{2}}$") == "\\frac{1}{2}"
    assert boxed_answer("$\\boxed 5$ apples") == "5" and boxed_answer("\\fbox{a}") == "a"
    assert boxed_answer("nothing") is None and boxed_answer("\\boxed{1") is None
    assert boxed_answer("\\boxed{\\left\\{ x \\right.} ok") == "\\left\\{ x \\right." and boxed_answer("\\boxed {7}.") == "7"


def test_answers_that_vote_together_are_equal():
    """Equations with the same right side and different left sides have different forms."""
    assert normal_form("5x + 4 = 0") != normal_form("x + y = 0") and normal_form("2516_8") == normal_form("2516_{8}")
    assert normal_form("x = \\frac12") == normal_form("$\\frac{1}{2}$") == normal_form("1/2") == "\\frac{1}{2}"


@pytest.mark.parametrize("text", [
    "9" * 10**6, "(" * 100_000, "{" * 100_000, "\\text{" * 20_000, "a b " * 25_000, "a$" * 50_000, "\\frac" * 20_000,
    "\\sqrt[" * 15_000,
    "1," * 50_000, "a=" * 50_000, "\\boxed{" * 14_000, "\\text{" * 499, "a$" * 1490, "(" * 1400 + "," + ")" * 1400,
    "1+" * 140 + "1",
    "(" * 140 + "1" + ")" * 140, "170!" * 50, "e^{" * 60 + "1" + "}" * 60, "\\exp(10^{200})", "\\tan{10^{299}}",
    "\\log" * 70 + "2",
    "10^{10^{10}}", "(1.0000001)^{999999999}", "\\sqrt[10^{290}]{2}", "\\lfloor 10^{299.5} \\rfloor", "99999!"])
def test_no_text_takes_long(text):
    start = time.monotonic()
    assert not equivalent_answers(text, "2") and equivalent_answers(text, text)
    equivalent_answers(text, text + "+0"), minerva_form(text), hendrycks_form(text), boxed_answer(text)
    assert time.monotonic() - start < 10  # a second or two; a quadratic rule takes minutes


def test_values_beyond_what_is_computed():
    assert not same_value("10^{10^{10}}", "10^{10^{10}}") and equivalent_answers("10^{10^{10}}", "10^{10^{10}}")
    assert not same_value("1/0", "1/0") and not same_value("", "") and not same_value("x +", "x +")
