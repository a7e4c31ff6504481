"""Markdown as models write it, and what the page makes of it."""

from __future__ import annotations

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is a test extra")

from playwright.sync_api import Browser

from tests.page.conftest import Cluster, Watched

pytestmark = pytest.mark.timeout(300)
RENDER = """async (texts) => {
    const { render } = await import("./page/markdown.js");
    return texts.map((text) => {
        const whole = document.createElement("div");
        render(whole, text);
        const grown = document.createElement("div");
        for (let n = 1; n <= text.length; n += 1) render(grown, text.slice(0, n));
        if (grown.innerHTML !== whole.innerHTML) throw new Error(`grown otherwise: ${text}`);
        return whole.innerHTML.replace(/ (?:target|rel|tabindex|aria-label|role|type)="[^"]*"/g, "")
            .replaceAll("<button>Copy</button>", "");
    });
}"""
CASES = {
    "plain *soft* and **hard**": "<p>plain <em>soft</em> and <strong>hard</strong></p>",
    "**a *b* c**": "<p><strong>a <em>b</em> c</strong></p>",
    "snake_case_name and 2 * 3 * 4": "<p>snake_case_name and 2 * 3 * 4</p>",
    "`a < b` and ``c ` d``": "<p><code>a &lt; b</code> and <code>c ` d</code></p>",
    "one\ntwo": "<p>one<br>two</p>",
    "# Title #\ntext": "<h2>Title</h2><p>text</p>",
    "a\n\n---\n\nb": "<p>a</p><hr><p>b</p>",
    "> quoted\n> more": "<blockquote><p>quoted<br>more</p></blockquote>",
    "- a\n- b\n  - c\n- d": "<ul><li>a</li><li>b<ul><li>c</li></ul></li><li>d</li></ul>",
    "3. a\n4. b": '<ol start="3"><li>a</li><li>b</li></ol>',
    "1. a\n\n   b\n2. c": "<ol><li><p>a</p><p>b</p></li><li>c</li></ol>",
    "text:\n- a": "<p>text:</p><ul><li>a</li></ul>",
    "- [x] done\n- [ ] not": (
        '<ul><li class="task"><input disabled=""> done</li>'
        '<li class="task"><input disabled=""> not</li></ul>'
    ),
    "```\nraw <b>\n```\nafter": (
        '<div class="code"><pre><code>raw &lt;b&gt;</code></pre></div><p>after</p>'
    ),
    "~~~~py\n# no\n~~~\nx = 1": (
        '<div class="code"><pre><code><span class="c"># no</span>\n~~~\n'
        'x = <span class="n">1</span></code></pre></div>'
    ),
    "```js\nconst s = 'x'; // y\n```": (
        '<div class="code"><pre><code><span class="k">const</span> s = '
        '<span class="s">\'x\'</span>; <span class="c">// y</span></code></pre></div>'
    ),
    "| a | b |\n|---|--:|\n| 1 | `x\\|y` |": (
        '<table><thead><tr><th>a</th><th style="text-align: right;">b</th></tr></thead>'
        '<tbody><tr><td>1</td><td style="text-align: right;"><code>x|y</code></td></tr>'
        "</tbody></table>"
    ),
    "[t](https://e.org/a_(b)) https://e.org/x.": (
        '<p><a href="https://e.org/a_(b)">t</a> <a href="https://e.org/x">https://e.org/x</a>.</p>'
    ),
    "\\*not\\* ~~gone~~": "<p>*not* <del>gone</del></p>",
    "**open and `open": "<p>**open and `open</p>",
}


@pytest.fixture(scope="module")
def shown(browser: Browser, cluster: Cluster) -> dict[str, str]:
    page = Watched(browser.new_page(), cluster.url).open()
    made: list[str] = page.evaluate(RENDER, list(CASES))
    page.close()
    return dict(zip(CASES, made, strict=True))


@pytest.mark.parametrize("text", CASES)
def test_what_markdown_becomes(shown: dict[str, str], text: str) -> None:
    """Whole, and as it grows by a character at a time."""
    assert shown[text] == CASES[text]
