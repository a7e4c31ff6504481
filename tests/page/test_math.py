"""Formulas on the page: what is one, what becomes of it, and that nothing of it runs or loads."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is a test extra")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is a test extra")

from playwright.sync_api import Browser, Page, expect  # noqa: E402

from api.http.page import FOLDER  # noqa: E402
from tests.page.conftest import Cluster, Watched, on_screen  # noqa: E402

pytestmark = pytest.mark.timeout(300)
# Of temml 0.13.5's dist/temml.min.js, as npm has it.
TEMML = "1ab19148afe0dbc836b7a74f344071b3f3a70a7a8259ae4049e76894fcdf8d95"

# What of a text is a formula: `⟨…⟩` within a line, `⟦…⟧` on a line of its own.
FOUND = {
    "Let $x$ be $y_1 + y_2$.": "Let ⟨x⟩ be ⟨y_1 + y_2⟩.",
    r"Let \(x\) be \(y_1 * y_2 * 3\).": "Let ⟨x⟩ be ⟨y_1 * y_2 * 3⟩.",
    "the $n$th and $x$-axis, 设$a$为$b$。": "the ⟨n⟩th and ⟨x⟩-axis, 设⟨a⟩为⟨b⟩。",
    "_where $x$_": "where ⟨x⟩",
    r"$5$ and $2x$ and $10\%$": r"⟨5⟩ and ⟨2x⟩ and ⟨10\%⟩",
    r"$0 \le xy \text{ for all } y$": r"⟨0 \le xy \text{ for all } y⟩",
    r"$\frac{a}{b}$**b**": r"⟨\frac{a}{b}⟩b",
    r"$a \$ b$": r"⟨a \$ b⟩",
    "in $$a$$ line": "in ⟦a⟧ line",
    r"in \[a\] line": "in ⟦a⟧ line",
    "$$\na\n$$": "⟦a⟧",
    "so:\n$$a\n= b$$\nand": "so:|⟦a\n= b⟧|and",
    "so:\n\\[\na\n\n- b\n\\],\nand": "so:|⟦a\n\n- b,⟧|and",
    r"\[ \begin{matrix} a \\ [b] \\\end{matrix} \]": (r"⟦\begin{matrix} a \\ [b] \\\end{matrix}⟧"),
    "1. one\n   $$\n   a\n   $$\n2. two": "one⟦a⟧|two",
    "> $$a$$": "⟦a⟧",
    "| $a$ | $5 | $6 |\n|---|---|---|\n| $b$ | 1 | 2 |": "⟨a⟩|$5|$6|⟨b⟩|1|2",
    "# On $x$": "On ⟨x⟩",
    # no formulas
    "$5 and $6": "$5 and $6",
    "$5-$6, $5/$6, ($5)–($6)": "$5-$6, $5/$6, ($5)–($6)",
    "It is $5, or 4 US$.": "It is $5, or 4 US$.",
    "From $5 to 10$ a day": "From $5 to 10$ a day",
    "$1,200.50 per year (in A$)": "$1,200.50 per year (in A$)",
    "$20 million, then $30 million$": "$20 million, then $30 million$",
    "It costs $5. Let $x$ be.": "It costs $5. Let ⟨x⟩ be.",
    "$HOME/$USER and $PATH:$PATH": "$HOME/$USER and $PATH:$PATH",
    r"\$x\$ and \\(": r"$x$ and \(",
    "a $ b $ c": "a $ b $ c",
    "`$x$` and $5 `a$`": "$x$ and $5 a$",
    "```\n$$\nx\n$$\n```": "$$\nx\n$$",
    "$$ is much\n```\n$$\n```": "$$ is much|$$",
    "$$\nnot ended": "$$|not ended",
    "$$$$ and $$": "$$$$ and $$",
}
READ = """async (texts) => {
    const { render } = await import("./page/markdown.js");
    const told = (place) => {
        for (const made of place.querySelectorAll(".math")) {
            const [open, end] = made.matches(".display") ? "⟦⟧" : "⟨⟩";
            made.replaceWith(open + made.querySelector("code").textContent + end);
        }
        for (const button of place.querySelectorAll("button")) button.remove();
        for (const end of place.querySelectorAll("br")) end.replaceWith("|");
        const parts = "p, pre, td, th, li, h2, div:not(:has(*), li *)";
        const tops = [...place.querySelectorAll(parts)].filter((one) => !one.querySelector("p"));
        return tops.map((one) => one.textContent).join("|");
    };
    return texts.map((text) => {
        const place = document.createElement("div");
        render(place, text);
        return told(place);
    });
}"""
SHOW = """async (texts) => {
    const { render } = await import("./page/markdown.js");
    const { loadMath } = await import("./page/math.js");
    await loadMath();
    const places = texts.map((text) => {
        const place = document.createElement("div");
        place.className = "body";
        document.querySelector("#messages").append(place);
        render(place, text);
        return place;
    });
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    return places.map((place) => place.innerHTML);
}"""


def test_it_is_temml_as_published_with_its_licence() -> None:
    assert hashlib.sha256((FOLDER / "temml.min.js").read_bytes()).hexdigest() == TEMML
    assert "Copyright (c) 2020 Ron Kok" in (FOLDER / "temml.licence.txt").read_text()


@pytest.fixture(scope="module")
def found(browser: Browser, cluster: Cluster) -> list[str]:
    """What the page reads in the texts of FOUND. Without Temml, formulas stay TeX."""
    page = browser.new_page()
    page.route("**/temml.min.js", lambda route: route.abort())
    Watched(page, cluster.url).open()
    told: list[str] = page.evaluate(READ, list(FOUND))
    page.close()
    return told


@pytest.mark.parametrize("text", FOUND)
def test_what_is_a_formula(found: list[str], text: str) -> None:
    assert found[list(FOUND).index(text)] == FOUND[text]


def test_formulas_become_mathml_and_grow_with_their_text(watched: Watched) -> None:
    page = watched.open()
    text = "So $x^2$:\n\n$$\n\\frac{a}{b}\n$$\n\n- \\(\\sqrt{2}\\)\n- \\[\\sum_{i=1}^n i\\]"
    [shown] = page.evaluate(SHOW, [text])
    for part in ("<msup><mi>x</mi>", "<mfrac><mi>a</mi>", "<msqrt><mn>2</mn>", "<munderover>"):
        assert part in shown
    assert shown.count("<math") == 4 and shown.count('display="block"') == 2
    grown = page.evaluate(
        """async (text) => {
            const { render } = await import("./page/markdown.js");
            const place = document.createElement("div");
            for (let n = 1; n <= text.length; n += 1) render(place, text.slice(0, n));
            return place.innerHTML;
        }""",
        text,
    )
    assert grown == re.sub(r' tabindex="0"', "", shown)
    # The browser lays it out: a fraction is higher than a line.
    height = "document.querySelector('mfrac').getBoundingClientRect().height"
    assert page.evaluate(height) > 1.5 * 16


def test_what_cannot_be_shown_stays_as_it_was_written(watched: Watched) -> None:
    page = watched.open()
    wrong = [r"$\nosuchcommand x$", r"$\frac{a$", "$" + "x" * 20_001 + "$"]
    shown = page.evaluate(SHOW, wrong)
    for text, html in zip(wrong, shown, strict=True):
        assert "<math" not in html and text.strip("$") in html and "title=" in html


def test_nothing_of_a_formula_runs_or_loads_or_outgrows_its_place(watched: Watched) -> None:
    """`watched` fails with what the page's policy had to forbid."""
    page = watched.open()
    hostile = [
        r"\href{javascript:alert(1)}{x}", r"\url{http://example.org/}",
        r"\includegraphics{http://example.org/x.png}", r"\htmlStyle{background:url(/x)}{x}",
        r"\text{<img src=x onerror=alert(1)>}", r"\class{send}{x}", r"\data{a=b}{x}",
        r"\def\a{\a\a}\a", r"\gdef\frac{\undefined}", r"\frac{1}{2}",
    ]  # fmt: skip
    shown = page.evaluate(SHOW, [f"$${tex}$$" for tex in hostile])
    assert not [html for html in shown if re.search(r"<(img|a|script)\b| (href|src|on\w+)=", html)]
    assert "<mfrac>" in shown[-1]
    styled = [r"\pmb{x}", r"\sideset{_1^2}{_3^4}\prod", r"\color{red}{x}", r"\cancel{x}"]
    shown = page.evaluate(SHOW, [f"$${tex}$$" for tex in styled])
    assert all("<math" in html for html in shown)
    bold = "getComputedStyle([...document.querySelectorAll('#messages mstyle')].at(0)).fontWeight"
    assert page.evaluate(bold) in ("700", "bold")
    page.evaluate(SHOW, [r"$$\rule{9999em}{9999em}\kern9999em x$$"])
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.querySelector('#messages').lastChild.offsetHeight < 1500")


def take(page: Page, folder: Path, answer: str) -> None:
    """Imports a conversation with an answer and shows it."""
    messages = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": answer}]
    listed = page.locator("#conversations a")
    name = f"math-{listed.count()}"  # a new one: else nothing would tell that it has arrived
    (folder / "kept.json").write_text(json.dumps({"id": name, "messages": messages}))
    page.set_input_files("#import-file", folder / "kept.json")
    expect(page.locator(f"#conversations a[href$='{name}']")).to_have_count(1)
    page.evaluate(f"location.hash = '#/c/{name}'")
    expect(page.locator(".assistant")).to_be_visible()


def test_it_is_loaded_with_the_first_formula(watched: Watched, tmp_path: Path) -> None:
    page = watched.open()
    asked: list[str] = []
    page.on("request", lambda request: "temml" in request.url and asked.append(request.url))
    take(page, tmp_path, "It costs $5 and $6, `$x$`.")
    expect(page.locator(".assistant code")).to_have_text("$x$")
    assert not asked
    take(page, tmp_path, "As $x$ and $y$.")
    expect(page.locator("math")).to_have_count(2)
    assert sorted(url.rpartition("/")[2] for url in asked) == ["temml.css", "temml.min.js"]


@pytest.mark.parametrize(("scheme", "width", "height"), [("light", 1200, 800), ("dark", 390, 844)])
def test_formulas_fit_the_screen_and_axe_finds_nothing(
    browser: Browser, cluster: Cluster, scheme: str, width: int, height: int, tmp_path: Path
) -> None:
    page = on_screen(browser, cluster.url, scheme, width, height).open()
    row = " + ".join(f"\\frac{{x_{{{i}}}}}{{{i}}}" for i in range(1, 40))
    take(page, tmp_path, f"Short $x$, long $y = {row}$:\n\n$$\ny = {row}\n$$\n\n$$x$$")
    expect(page.locator("math")).to_have_count(4)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    body = page.locator(".assistant .body")
    expect(body).not_to_have_attribute("tabindex", "0")  # the formula in the line has wrapped
    wide, narrow = page.locator(".math.display").all()
    expect(wide).to_have_attribute("tabindex", "0")
    expect(narrow).not_to_have_attribute("tabindex", "0")
    wide.focus()
    page.keyboard.press("ArrowRight")
    page.evaluate(
        """() => new Promise((done) => {
            const active = document.activeElement;
            const look = () => active.scrollLeft > 0 ? done() : setTimeout(look, 20);
            look();
        })"""
    )
    found = axe.Axe().run(page)
    assert not found.response["violations"], found.generate_report()
    take(page, tmp_path, f"In a line, and in one piece: $\\sqrt{{{row}}}$.")
    page.reload()
    expect(body).to_have_attribute("tabindex", "0")
    outgrown = "document.querySelector('#messages').scrollWidth > innerWidth"
    assert not page.evaluate(outgrown)
    found = axe.Axe().run(page)
    assert not found.response["violations"], found.generate_report()
    page.context.close()
