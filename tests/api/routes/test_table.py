"""The table of routes is what the server serves, and what the documents show."""

from __future__ import annotations

import re
from pathlib import Path

from api.routes.table import PUBLIC_PATHS, ROUTES, UNSUPPORTED, Route, served_routes, shown_routes

PAGE_FILES = ("/page/{name}", "/sw.js", "/manifest.webmanifest", "/_app/version.json")
ROOT = Path(__file__).resolve().parents[3]


def line_of(route: Route) -> str:
    first, *others = (f"`{re.sub(r':[^}]*}', '}', path)}`" for path in route.paths)
    who = "everybody" if route.is_public else "with a key"
    return f"| {route.method} {first} | {', '.join(others)} | {who} | {route.about} |"


def test_no_path_is_served_twice() -> None:
    served = [(route.method, path) for route in ROUTES for path in route.paths]
    served += [("POST", path) for path in UNSUPPORTED]
    assert len(set(served)) == len(served)
    assert len(served_routes()) + len(UNSUPPORTED) == len(served)
    assert len(shown_routes()) == len(ROUTES)


def test_every_route_says_what_it_is_about() -> None:
    assert all(route.about and not route.about.endswith(".") for route in ROUTES)
    assert all(route.handler.__name__ for route in ROUTES)


def test_the_document_shows_the_table() -> None:
    text = (ROOT / "docs" / "routes.md").read_text()
    shown = [line for line in text.splitlines() if re.match(r"\| (GET|POST|DELETE) ", line)]
    assert shown == [line_of(route) for route in ROUTES]


def test_the_readme_shows_no_other_route() -> None:
    known = {path for route in ROUTES for path in route.paths}
    text = (ROOT / "README.md").read_text()
    table = text[text.index("| routes | |") :].split("\n\n")[0]
    shown = set(re.findall(r"`(/[a-z0-9/_-]+)`", table))
    assert shown and shown <= known


def test_what_needs_no_key_tells_nothing_of_anybody() -> None:
    assert {"/", "/health", "/v1/health", "/live", *PAGE_FILES} == {
        path for path in PUBLIC_PATHS if not path.startswith("/page/") or "{" in path
    }
