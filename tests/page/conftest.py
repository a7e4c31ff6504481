"""A real browser, Debian's Chromium, and a real server to show it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is a test extra")

from playwright.sync_api import Browser, Page, expect, sync_playwright  # noqa: E402

from tests.ports import own_worker_port  # noqa: E402
from tests.programs import Program, Server, root, start_worker  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE_MS = 60_000
DEMO = Path(__file__).parents[2] / "dllama" / "data" / "dllama-demo.q8_0.gguf"
# Nothing of its own over the network, and no sandbox, which root may not have.
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip


def ask(page: Page, text: str) -> None:
    page.fill("#prompt", text)
    page.keyboard.press("Enter")


def ended(page: Page) -> None:
    """Waits for the end of the answer."""
    expect(page.locator("#stop")).to_be_hidden(timeout=PATIENCE_MS)
    expect(page.locator(".assistant .acts").last).to_be_visible(timeout=PATIENCE_MS)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium; install Debian's package chromium")
    with sync_playwright() as drives:
        chromium = drives.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield chromium
        chromium.close()


@dataclass
class Cluster:
    """A root that serves the packaged model, and its worker."""

    server: Server
    worker: Program

    @property
    def url(self) -> str:
        return self.server.url + "/"


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder, port = tmp_path_factory.mktemp("page"), own_worker_port()
    worker = start_worker(folder, port)
    try:
        with root(
            folder, DEMO, "--workers", f"127.0.0.1:{port}", "--shares", "1,1",
            "--rejoin-s", "0", "--api-prefix", "/llm", prefix="/llm",
        ) as server:  # fmt: skip
            yield Cluster(server, worker)
    finally:
        worker.stop()


class Watched:
    """A page, and what went wrong on it: errors, and requests to anywhere else."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url = page, url
        self.wrong: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("console", lambda said: said.type == "error" and self.wrong.append(said.text))
        page.on("request", self._note)

    def _note(self, request: object) -> None:
        url: str = getattr(request, "url", "")
        if not url.startswith((self.url, "data:", "blob:")):
            self.wrong.append(f"asked for {url}")

    def open(self, at: str = "") -> Page:
        self.page.goto(self.url + at)
        self.page.wait_for_selector("html[data-ready]")
        return self.page


def on_screen(browser: Browser, url: str, scheme: str, width: int, height: int) -> Watched:
    """A fresh profile that wants "light" or "dark", on a screen of this size."""
    context = browser.new_context(
        color_scheme=scheme,  # type: ignore[arg-type]
        viewport={"width": width, "height": height},
    )
    return Watched(context.new_page(), url)


@pytest.fixture
def watched(browser: Browser, cluster: Cluster) -> Iterator[Watched]:
    """A fresh profile; the test fails with whatever went wrong on the page."""
    context = browser.new_context()
    seen = Watched(context.new_page(), cluster.url)
    yield seen
    context.close()
    assert not seen.wrong
