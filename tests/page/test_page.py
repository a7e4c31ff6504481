"""The page as people use it, in a real browser: chats, settings, the cluster, without a mouse, on a
phone, in light and dark."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is a test extra")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is a test extra")

from playwright.sync_api import Browser, expect  # noqa: E402

from tests.page.conftest import DEMO, PATIENCE_MS, Cluster, Watched, ask, ended, on_screen  # noqa: E402
from tests.programs import server as server_of  # noqa: E402

pytestmark = pytest.mark.timeout(300)
QUESTION = "How do I start a worker?"


def test_an_answer_is_streamed_and_kept(watched: Watched) -> None:
    page = watched.open()
    ask(page, QUESTION)
    expect(page.locator("#stop")).to_be_visible()
    ended(page)
    code = page.locator(".assistant .body code").first
    expect(code).to_contain_text("dllama-worker")
    expect(page.locator("#speed")).to_have_text(re.compile(r"tokens/s · \d+ tokens"))
    expect(page.locator("#conversations a")).to_have_text([QUESTION])
    said = page.locator(".assistant .body").inner_text()
    watched.open("#" + page.url.partition("#")[2])
    page.reload()
    expect(page.locator(".assistant .body")).to_have_text(said)
    page.click("#new-chat")
    expect(page.locator(".message")).to_have_count(0)


def test_an_answer_is_stopped_edited_and_asked_for_again(
    watched: Watched, cluster: Cluster
) -> None:
    page = watched.open()
    page.click("#settings")
    page.fill("[name=temperature]", "0")
    page.fill("#set-system", "Say little.")
    page.click("#settings-dialog [type=submit]")
    page.fill("#prompt", QUESTION)
    page.click("#send")
    expect(page.locator(".writing .body")).not_to_be_empty()
    page.click("#stop")
    expect(page.locator(".assistant")).to_contain_text("Stopped.")
    page.get_by_role("button", name="Answer again").click()
    ended(page)
    first = page.locator(".assistant .body").inner_text()
    page.get_by_role("button", name="Answer again").click()
    ended(page)
    expect(page.locator(".assistant .body")).to_have_text(first)
    page.get_by_role("button", name="Edit the message and ask again").click()
    page.fill(".editor textarea", "What is a root?")
    page.click(".editor [type=submit]")
    ended(page)
    expect(page.locator(".user .body")).to_have_text("What is a root?")
    expect(page.locator(".assistant .body")).not_to_have_text(first)
    assert cluster.server.get("/stats")[1]["sequences"]["running"] == 0


def test_a_conversation_is_gone_on_with_named_and_found(watched: Watched) -> None:
    page = watched.open()
    page.click("#settings")
    page.fill("[name=temperature]", "0")
    page.fill("[name=max_tokens]", "4")
    page.click("#settings-dialog [type=submit]")
    ask(page, QUESTION)
    ended(page)
    expect(page.locator(".assistant")).to_contain_text("was cut off")
    begun = page.locator(".assistant .body").inner_text()
    page.click("#settings")
    page.fill("[name=max_tokens]", "")
    page.click("#settings-dialog [type=submit]")
    page.get_by_role("button", name="Go on with the answer").click()
    expect(page.locator("#stop")).to_be_visible()
    ended(page)
    whole = page.locator(".assistant .body").inner_text()
    assert whole.startswith(begun.replace("`", "")) and "dllama-worker" in whole
    page.once("dialog", lambda asked: asked.accept("Workers, once"))
    page.get_by_role("button", name="Rename").click()
    expect(page.locator("#conversations a")).to_have_text(["Workers, once"])
    for words, n_found in (("starships", 0), ("DLLAMA-worker", 1), ("once", 1)):
        page.fill("#search", words)
        expect(page.locator("#conversations a")).to_have_count(n_found)


def test_text_files_are_put_into_the_message(watched: Watched) -> None:
    page = watched.open()
    page.fill("#prompt", "Look:")
    said: list[str] = []
    page.once("dialog", lambda asked: (said.append(asked.message), asked.accept()))
    page.set_input_files("#attach-files", [
        {"name": "a.md", "mimeType": "text/markdown", "buffer": "```\nü\n```".encode()},
        {"name": "b.bin", "mimeType": "", "buffer": b"\xff\x00"},
    ])  # fmt: skip
    expect(page.locator("#prompt")).to_have_value("Look:\n\na.md:\n````\n```\nü\n```\n````\n")
    expect(page.locator("#prompt")).to_be_focused()
    assert said == ["Only text files of at most 1 MB can be read: not b.bin."]


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_files_are_dropped_and_pasted(watched: Watched, way: str) -> None:
    page = watched.open()
    said: list[str] = []
    page.once("dialog", lambda asked: (said.append(asked.message), asked.accept()))
    with page.expect_event("dialog"):
        taken = page.evaluate(
            """(way) => {
                const carried = new DataTransfer();
                carried.items.add(new File(["one\\ntwo"], "a.txt"));
                carried.items.add(new File(["%PDF-1.7\\0"], "b.PDF"));
                const area = document.querySelector("#prompt");
                const more = { bubbles: true, cancelable: true };
                if (way === "paste") {
                    const pasted = new ClipboardEvent(way, { clipboardData: carried, ...more });
                    return !area.dispatchEvent(pasted);
                }
                const place = document.querySelector("#messages");
                return ["dragover", "drop"].every((name) =>
                    !place.dispatchEvent(new DragEvent(name, { dataTransfer: carried, ...more })));
            }""",
            way,
        )
    assert taken
    expect(page.locator("#prompt")).to_have_value("a.txt:\n```\none\ntwo\n```\n")
    assert said == [
        "Only text files of at most 1 MB can be read: not b.PDF. "
        "The program pdftotext makes text of a PDF file."
    ]


def test_a_text_is_pasted_as_a_text_where_there_is_a_file_beside_it(watched: Watched) -> None:
    """As spreadsheets copy cells: a text, and a picture of it."""
    left_to_the_browser = watched.open().evaluate(
        """() => {
            const carried = new DataTransfer();
            carried.setData("text/plain", "1");
            carried.items.add(new File(["\\x89PNG"], "cells.png"));
            const more = { bubbles: true, cancelable: true };
            const pasted = new ClipboardEvent("paste", { clipboardData: carried, ...more });
            return document.querySelector("#prompt").dispatchEvent(pasted);
        }"""
    )
    assert left_to_the_browser


def test_how_far_a_prompt_is_read(watched: Watched) -> None:
    told = watched.open().evaluate(
        """async () => {
            const { addPiece, emptyAnswer } = await import("./page/answer.js");
            return [500, 800, 2000].map((processed) => {
                const message = emptyAnswer("m");
                addPiece(message, { prompt_progress: { total: 2000, cache: 500, processed } });
                return message.loading;
            });
        }"""
    )
    left = ["Reads the prompt: 0 % of 1500 tokens", "Reads the prompt: 20 % of 1500 tokens", ""]
    assert told == left


def test_all_of_it_without_a_mouse(watched: Watched) -> None:
    page = watched.open()
    ask(page, QUESTION)
    ended(page)
    page.keyboard.press("Control+Home")
    reached = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("document.activeElement.id || document.activeElement.textContent")
        )
    assert {"model", "theme", "new-chat", "messages", "prompt", "settings", "Retry"} <= reached


@pytest.mark.parametrize(("scheme", "width", "height"), [("light", 1200, 800), ("dark", 360, 740)])
def test_it_fits_the_screen_and_axe_finds_nothing(
    browser: Browser, cluster: Cluster, scheme: str, width: int, height: int
) -> None:
    page = on_screen(browser, cluster.url, scheme, width, height).open()
    ask(page, QUESTION)
    ended(page)
    for at in ("chat", "#settings", "#model", "cluster", "about"):
        if at.startswith("#"):
            page.click(at)
            expect(page.locator("dialog[open]")).to_be_visible()
        elif at != "chat":
            page.click(f"[data-page={at}]")
            expect(page.locator(f"#page-{at} h1")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), at
        found = axe.Axe().run(page)
        assert not found.response["violations"], (at, found.generate_report())
        page.keyboard.press("Escape")
    page.context.close()


def test_nothing_of_a_text_runs_or_loads(watched: Watched) -> None:
    page = watched.open()
    hostile = (
        "<img src=x onerror=alert(1)> <script>alert(2)</script>\n\n[a](javascript:alert(3)) "
        "![b](http://example.org/x.png) [c](data:text/html,x) <http://example.org>"
    )
    shown = page.evaluate(
        """async (text) => {
            const { render } = await import("./page/markdown.js");
            const place = document.createElement("div");
            document.body.append(place);
            render(place, text);
            return place.innerHTML;
        }""",
        hostile,
    )
    assert "<img" not in shown and "<script" not in shown and "javascript:" not in shown
    assert shown.count("<a ") == 2 and 'rel="noopener noreferrer nofollow"' in shown
    blocked = page.evaluate(
        """() => new Promise((resolve) => {
            document.addEventListener(
                "securitypolicyviolation", (event) => resolve(event.violatedDirective));
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
        })"""
    )
    assert blocked == "script-src-elem" and page.evaluate("window.ran") is None
    watched.wrong.clear()  # the browser tells of what it blocked


def test_models_are_loaded_chosen_and_unloaded(browser: Browser, tmp_path: Path) -> None:
    shutil.copy(DEMO, tmp_path / "second.gguf")
    with server_of(tmp_path, "--models-dir", str(tmp_path)) as server:
        seen = Watched(browser.new_page(), server.url + "/")
        page = seen.open()
        ask(page, QUESTION)
        ended(page)
        expect(page.locator(".assistant header b")).to_have_text(DEMO.stem)
        page.click("#model")
        second = page.locator("tr[data-model=second]")
        expect(second).to_contain_text("unloaded")
        second.get_by_role("button", name="Load", exact=True).click()
        expect(second).to_contain_text("loaded ·", timeout=PATIENCE_MS)
        second.get_by_role("button", name="Choose").click()
        expect(page.locator("#model-name")).to_have_text("second")
        page.get_by_role("button", name="Answer again").click()
        ended(page)
        expect(page.locator(".assistant header b")).to_have_text("second")
        page.click("#model")
        first = page.locator(f"tr[data-model='{DEMO.stem}']")
        first.get_by_role("button", name="Unload").click()
        expect(first).to_contain_text("unloaded")
        page.keyboard.press("Escape")
        page.click("[data-page=cluster]")
        expect(page.locator("#page-cluster table")).to_contain_text("unloaded")
        expect(page.locator(".node")).to_have_count(1)
        assert not seen.wrong
        page.close()


def test_a_lost_worker_is_seen(watched: Watched, cluster: Cluster) -> None:
    """Comes last: the worker does not come back."""
    page = watched.open("#/cluster")
    expect(page.locator(".node")).to_have_count(2)
    expect(page.locator(".node").nth(1)).to_contain_text("present")
    cluster.worker.kill()
    expect(page.locator(".node.lost .badge")).to_be_visible(timeout=PATIENCE_MS)
    expect(page.locator(".happened")).to_contain_text("present →")
    page.click("[data-page=chat]")
    ask(page, QUESTION)
    ended(page)
    expect(page.locator(".assistant .body")).to_contain_text("dllama-worker")
