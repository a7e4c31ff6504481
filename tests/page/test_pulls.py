"""Models are downloaded and deleted on the page, from a hub on loopback."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is a test extra")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is a test extra")

from playwright.sync_api import Browser, Page, expect  # noqa: E402

from tests.hub_server import HubServer, Trouble, hub_server  # noqa: E402
from tests.page.conftest import PATIENCE_MS, Watched  # noqa: E402
from tests.programs import Server, server  # noqa: E402
from tests.toy_models import write_toy  # noqa: E402

pytestmark = pytest.mark.timeout(300)
NAME, FILE = "user/toy:Q8_0", "toy-Q8_0.gguf"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    model = write_toy(tmp_path_factory.mktemp("hub") / FILE, max_seq_len=2048)
    with hub_server() as hub:
        hub.repos["user/toy"] = {FILE: model.read_bytes()}
        hub.repos["user/bad"] = {FILE: model.read_bytes()}
        yield hub


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory, hub: HubServer) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("pulls")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setenv("DLLAMA_MODELS", str(folder / "pulled"))
        with server(folder, "--models-max", "1") as found:
            yield found


def opened(browser: Browser, url: str, **context: object) -> tuple[Watched, Page]:
    """The page with the dialog of models."""
    seen = Watched(browser.new_context(**context).new_page(), url + "/")  # type: ignore[arg-type]
    page = seen.open()
    page.click("#model")
    return seen, page


def download(page: Page, name: str) -> None:
    page.get_by_label("Download a model").fill(name)
    page.keyboard.press("Enter")


def test_a_model_is_downloaded_stopped_gone_on_with_asked_and_deleted(
    browser: Browser, router: Server, hub: HubServer
) -> None:
    seen, page = opened(browser, router.url)
    hub.pace_s = 0.2
    download(page, NAME)
    pull = page.locator(f"[data-pull='hf.co/{NAME}']")
    expect(pull).to_contain_text(re.compile(r"\d+ KB of \d+ KB"), timeout=PATIENCE_MS)
    expect(pull.get_by_role("progressbar")).to_be_visible()
    stop = pull.get_by_role("button", name="Stop")
    stop.focus()
    expect(pull).to_contain_text("left")
    expect(stop).to_be_focused()
    stop.click()
    expect(pull).to_contain_text("stopped")
    hub.pace_s = 0.0
    pull.get_by_role("button", name="Go on").click()
    row = page.locator(f"tr[data-model='{NAME}']")
    expect(row).to_be_visible(timeout=PATIENCE_MS)
    expect(pull).to_have_count(0)
    row.get_by_role("button", name="Choose").click()
    expect(page.locator("#model-name")).to_have_text(NAME)
    page.click("#model")
    asked: list[str] = []
    for answer, n_left in (("dismiss", 1), ("accept", 0)):
        page.once(
            "dialog", lambda it, answer=answer: (asked.append(it.message), getattr(it, answer)())
        )
        row.get_by_role("button", name="Delete").click()
        expect(row).to_have_count(n_left, timeout=PATIENCE_MS)
    assert all(f"Delete “{NAME}” (" in text for text in asked) and len(asked) == 2
    assert not seen.wrong
    page.context.close()


@pytest.mark.parametrize(("scheme", "width", "height"), [("light", 1200, 800), ("dark", 360, 740)])
def test_why_a_download_fails_is_told(
    browser: Browser, router: Server, hub: HubServer, scheme: str, width: int, height: int
) -> None:
    seen, page = opened(
        browser, router.url, color_scheme=scheme, viewport={"width": width, "height": height}
    )
    download(page, "user/nothing:Q4_0")
    expect(page.get_by_role("alert")).to_contain_text("user/nothing", timeout=PATIENCE_MS)
    hub.always[FILE] = Trouble(status=404)
    download(page, "user/bad:Q8_0")
    pull = page.locator("[data-pull='hf.co/user/bad:Q8_0']")
    expect(pull).to_contain_text("not there", timeout=PATIENCE_MS)
    expect(pull.get_by_role("button", name="Try again")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    found = axe.Axe().run(page)
    assert not found.response["violations"], found.generate_report()
    hub.always.clear()
    seen.wrong[:] = [text for text in seen.wrong if "404" not in text]  # the console tells of it
    assert not seen.wrong
    page.context.close()
