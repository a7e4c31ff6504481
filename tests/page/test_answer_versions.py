"""Versions of answers and questions on the page, answers in the user's own words, and their
continuation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is a test extra")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is a test extra")

from playwright.sync_api import Browser, Page, Request, expect  # noqa: E402

from dllama.cli.talk.kept import load_conversation, save_conversation  # noqa: E402
from tests.page.conftest import Cluster, Watched, ask, ended, on_screen  # noqa: E402

pytestmark = pytest.mark.timeout(300)
QUESTION, OTHER = "How do I start a worker?", "What is a root?"
OWN = "To start a worker, run"
# 300 random changes of a conversation. Every message that was written stays, unless it is removed.
CHANGES = """async (seed) => {
    const { addVersion, allVersions, areMessages, removeVersion, showVersion } =
        await import("./page/versions.js");
    let state = seed;
    const below = (n) => (state = (state * 48271) % 2147483647) % n;
    const messages = [];
    let n_written = 0;
    const next = (role) => ({ role, content: `${n_written++}` });
    const shown = () => messages.map((message) => message.content).join(" ");
    for (let i = 0; i < 300; i += 1) {
        const all = () => Array.from(allVersions(messages), (message) => message.content);
        const before = all();
        const index = below(Math.min(messages.length, 6) + 1);
        const versions = messages[index]?.versions;
        if (below(3) && versions) {
            const [at, back] = [shown(), versions.shown];
            const n = below(versions.tails.length);
            if (n === back) continue;
            if (!showVersion(messages, index, n)) throw new Error("not shown");
            if (all().length !== before.length) throw new Error("lost by showing another");
            if (!below(2)) continue;
            showVersion(messages, index, back);
            if (shown() !== at) throw new Error("another came back");
        } else if (versions && !below(4)) {
            removeVersion(messages, index);
        } else {
            const written = next(index % 2 ? "assistant" : "user");
            addVersion(messages, index, [written]);
            const missing = before.filter((content) => !all().includes(content));
            if (missing.length || messages.at(-1) !== written) throw new Error(`lost ${missing}`);
        }
        if (new Set(all()).size !== all().length) throw new Error("a message is there twice");
        if (!areMessages(JSON.parse(JSON.stringify(messages)))) throw new Error("is not sound");
    }
    return Array.from(allVersions(messages)).length;
}"""


def with_settings(page: Page, **values: str) -> None:
    page.click("#settings")
    for name, value in values.items():
        page.fill(f"[name={name}]", value)
    page.click("#settings-dialog [type=submit]")


def rewrite(page: Page, button: str, text: str) -> None:
    page.get_by_role("button", name=button).last.click()
    page.fill(".editor textarea", text)
    page.keyboard.press("Control+Enter")


def asked_otherwise(watched: Watched) -> Page:
    """A conversation whose question has two versions, with an answer to each."""
    page = watched.open()
    with_settings(page, max_tokens="4")
    ask(page, QUESTION)
    ended(page)
    rewrite(page, "Edit the message and ask again", OTHER)
    ended(page)
    return page


def expect_turns(page: Page, *shown: str) -> None:
    """Waits for it: a chat that another one's click replaces may have the same words."""
    expect(page.locator(".versions > span")).to_have_text(list(shown))


def requests_of(page: Page) -> list[dict[str, Any]]:
    """The bodies of the requests for answers, as they are sent."""
    bodies: list[dict[str, Any]] = []

    def note(request: Request) -> None:
        if request.url.endswith("/chat/completions"):
            bodies.append(request.post_data_json)

    page.on("request", note)
    return bodies


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_version_is_lost_by_any_change(watched: Watched, seed: int) -> None:
    assert watched.open().evaluate(CHANGES, seed) > 20


def test_versions_of_answers_and_questions_are_kept_and_shown_again(watched: Watched) -> None:
    page = watched.open()
    with_settings(page, temperature="0", max_tokens="12")
    ask(page, QUESTION)
    ended(page)
    first = page.locator(".assistant .body").inner_text()
    expect_turns(page)
    page.get_by_role("button", name="Answer again").click()
    ended(page)
    expect_turns(page, "2 / 2")
    ask(page, "And then?")
    ended(page)
    rewrite(page, "Edit the message and ask again", "And before?")
    ended(page)
    expect_turns(page, "2 / 2", "2 / 2")
    page.get_by_role("button", name="The version before").last.click()
    expect(page.locator(".user .body").last).to_have_text("And then?")
    page.get_by_role("button", name="The version before").first.click()
    expect(page.locator(".message")).to_have_count(2)
    expect(page.locator(".assistant .body")).to_have_text(first)
    page.reload()
    expect(page.locator(".versions > span")).to_have_text(["1 / 2"])
    page.get_by_role("button", name="The next version").click()
    expect(page.locator(".user .body").last).to_have_text("And then?")
    page.fill("#search", "and BEFORE")
    expect(page.locator("#conversations a")).to_have_count(1)


def test_versions_are_turned_and_removed_by_keyboard(watched: Watched) -> None:
    page = asked_otherwise(watched)
    page.locator("#messages").focus()
    for _ in range(9):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.ariaLabel") == "The version before":
            break
    page.keyboard.press("Enter")
    expect(page.locator(".user .body")).to_have_text(QUESTION)
    expect(page.locator("#announce")).to_have_text("Version 1 of 2.")
    before = page.get_by_role("button", name="The version before")
    expect(before).to_be_focused()
    expect(before).to_have_attribute("aria-disabled", "true")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowLeft")
    expect_turns(page, "1 / 2")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".user .body")).to_have_text(OTHER)
    expect(page.get_by_role("button", name="The next version")).to_be_focused()
    said: list[str] = []
    for answer, text in (("dismiss", OTHER), ("accept", QUESTION)):
        page.once(
            "dialog", lambda it, answer=answer: (said.append(it.message), getattr(it, answer)())
        )
        page.get_by_role("button", name="Delete this version and what follows it").press("Enter")
        expect(page.locator(".user .body")).to_have_text(text)
    assert said == ["Delete this version and the message after it?"] * 2
    expect_turns(page)


def test_an_answer_is_rewritten_and_continued(watched: Watched) -> None:
    page = watched.open()
    bodies = requests_of(page)
    with_settings(page, temperature="0")
    ask(page, QUESTION)
    ended(page)
    expect(page.get_by_role("button", name="Go on with the answer")).to_have_count(0)
    written = page.locator(".assistant .body").inner_text()
    ask(page, OTHER)
    ended(page)
    page.get_by_role("button", name="Edit the answer").first.click()
    expect(page.locator(".editor textarea")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Edit the answer").first).to_be_focused()
    page.keyboard.press("Enter")
    page.fill(".editor textarea", OWN)
    page.click(".editor [type=submit]")
    expect(page.locator(".assistant .body").first).to_have_text(OWN)
    expect(page.locator(".assistant header").first).to_contain_text("edited")
    expect(page.get_by_role("button", name="Edit the answer").first).to_be_focused()
    expect(page.locator(".message")).to_have_count(4)  # what followed it follows it still
    page.get_by_role("button", name="The version before").click()
    expect(page.locator(".assistant .body").first).to_have_text(written)
    page.get_by_role("button", name="The next version").click()
    page.get_by_role("button", name="Delete the message").last.click()
    page.get_by_role("button", name="Delete the message").last.click()
    page.get_by_role("button", name="Go on with the answer").click()
    ended(page)
    assert bodies[-1]["continue_final_message"] is True
    assert bodies[-1]["messages"][-1] == {"role": "assistant", "content": OWN}
    whole = page.locator(".assistant .body").inner_text()
    assert whole.startswith(OWN) and "dllama-worker" in whole
    expect(page.get_by_role("button", name="Go on with the answer")).to_have_count(0)


def test_thoughts_are_sent_only_with_an_answer_that_is_continued(watched: Watched) -> None:
    told = watched.open().evaluate(
        """async () => {
            const { asRequest, canContinue } = await import("./page/answer.js");
            const said = (content, finish) =>
                ({ role: "assistant", content, thoughts: "Hm", calls: [], finish });
            const messages = [{ role: "user", content: "a" }, said("b", "stop"),
                { role: "user", content: "c" }, said("", "stopped")];
            return [asRequest({ messages }), asRequest({ messages }, messages[3]),
                messages.map(canContinue)];
        }"""
    )
    start = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    begun = {"role": "assistant", "content": "", "reasoning_content": "Hm"}
    assert told == [start, [*start, begun], [False, False, False, True]]


def test_an_answer_that_failed_makes_no_version(watched: Watched) -> None:
    page = watched.open()
    page.route("**/chat/completions", lambda route: route.abort())
    ask(page, QUESTION)
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
    page.unroute("**/chat/completions")
    page.get_by_role("button", name="Answer again").click()
    ended(page)
    expect(page.get_by_role("alert")).to_have_count(0)
    expect_turns(page)
    watched.wrong[:] = [text for text in watched.wrong if "ERR_FAILED" not in text]


def test_versions_are_exported_and_imported(watched: Watched, tmp_path: Path) -> None:
    page = asked_otherwise(watched)
    with page.expect_download() as got:
        page.click("#export-all")
    got.value.save_as(tmp_path / "all.json")
    # The chat in the terminal reads what is shown, and writes without versions.
    messages = load_conversation(tmp_path / "all.json")
    assert messages[0]["content"] == OTHER and len(messages) == 2
    save_conversation(tmp_path / "old.json", messages)
    page.once("dialog", lambda asked: asked.accept())
    page.get_by_role("button", name="Delete " + OTHER).click()
    expect(page.locator("#conversations a")).to_have_count(0)
    for n, name in enumerate(("all.json", "old.json"), 1):
        page.set_input_files("#import-file", tmp_path / name)
        expect(page.locator("#conversations a")).to_have_count(n)
        page.locator("#conversations a").first.click()
        expect(page.locator(".user .body")).to_have_text(OTHER)
        expect_turns(page, *(["2 / 2"] if name == "all.json" else []))
    page.locator("#conversations a").last.click()
    page.get_by_role("button", name="The version before").click()
    expect(page.locator(".user .body")).to_have_text(QUESTION)


@pytest.mark.parametrize("damage", [
    {"shown": 0, "tails": []},
    {"shown": 2, "tails": [None, [{"role": "user", "content": "a"}]]},
    {"shown": 0, "tails": [None, []]},
    {"shown": 0, "tails": [None, [{"role": "user"}]]},
    {"shown": 0, "tails": [None, None]},
])  # fmt: skip
def test_damaged_versions_are_refused(watched: Watched, damage: object, tmp_path: Path) -> None:
    page = watched.open()
    kept = {"id": "x", "messages": [{"role": "user", "content": "a", "versions": damage}]}
    (tmp_path / "bad.json").write_text(json.dumps(kept))
    said: list[str] = []
    page.once("dialog", lambda asked: (said.append(asked.message), asked.accept()))
    with page.expect_event("dialog"):
        page.set_input_files("#import-file", tmp_path / "bad.json")
    assert said == ["The file was not taken: The file has no conversations of this page."]


@pytest.mark.parametrize(("scheme", "width", "height"), [("light", 1200, 800), ("dark", 390, 844)])
def test_versions_fit_the_screen_and_axe_finds_nothing(
    browser: Browser, cluster: Cluster, scheme: str, width: int, height: int
) -> None:
    page = on_screen(browser, cluster.url, scheme, width, height).open()
    with_settings(page, max_tokens="4")
    ask(page, QUESTION)
    ended(page)
    page.get_by_role("button", name="Answer again").click()
    ended(page)
    for at in ("editor", "answer"):
        if at == "editor":
            page.get_by_role("button", name="Edit the answer").click()
        else:
            page.keyboard.press("Escape")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate(
            "document.querySelector('#messages').scrollWidth <= "
            "document.querySelector('#messages').clientWidth"
        )
        found = axe.Axe().run(page)
        assert not found.response["violations"], (at, found.generate_report())
    page.context.close()
