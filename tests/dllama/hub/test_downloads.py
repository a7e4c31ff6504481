"""Downloads from a real HTTP server that breaks, lies and is slow: right bytes or a clear error,
and nothing left over."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dllama.errors import HubError, ModelNameError, NotOnHub
from dllama.hub.checksum import Checksum
from dllama.hub.partial_file import PartialFile
from dllama.hub.store import UNFINISHED
from dllama.hub.task import EventType
from tests.dllama.hub.pulling import files_in, pulling, settings_of, whole_models
from tests.hub_server import HubServer, Trouble, hub_server
from tests.leaks import no_leaks  # noqa: F401  (a fixture)

pytestmark = pytest.mark.usefixtures("no_leaks")
NAME = "hf.co/user/toy:Q4_0"


def content(seed: int, n_bytes: int = 100_000) -> bytes:
    one = hashlib.sha256(str(seed).encode()).digest()
    return (one * (n_bytes // len(one) + 1))[:n_bytes]


PARTS = {f"toy-Q4_0-{i:05d}-of-00008.gguf": content(i, 50_000 + i) for i in range(1, 9)}
ONE = {"toy-Q4_0.gguf": content(0)}
[ONE_FILE] = ONE


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with hub_server() as server:
        server.repos["user/toy"] = dict(ONE)
        yield server


def kinds(events: list) -> list[EventType]:
    """The kinds of events, updates left out."""
    return [event.type for event in events if event.type is not EventType.UPDATED]


def test_a_model_comes_whole_with_events_as_clients_know_them(
    hub: HubServer, tmp_path: Path
) -> None:
    async def run() -> None:
        async with pulling(settings_of(hub, tmp_path)) as pull:
            events = await pull.pull("user/toy:q4_0")
            assert kinds(events) == [EventType.STARTED, EventType.SUCCESS]
            told = events[-1].as_json()
            assert told["type"] == "DownloadSuccess"
            [item] = told["task"]["items"]
            assert told["task"]["id"] == NAME and told["task"]["type"] == "Model"
            assert item["id"] == ONE_FILE
            assert item["downloadUrl"].endswith(f"/{ONE_FILE}")
            assert item["checksum"] == "sha256:" + hashlib.sha256(ONE[ONE_FILE]).hexdigest()
            assert item["bytes"] == item["downloadedBytes"] == len(ONE[ONE_FILE])
            assert Path(item["localPath"]).read_bytes() == ONE[ONE_FILE]
            # Again: it is here, and the hub is asked for its list alone.
            n_seen = len(hub.seen)
            again = [EventType.STARTED, EventType.SUCCESS]
            assert kinds(await pull.pull("user/toy")) == again
            assert len(hub.seen) == n_seen + 1

    asyncio.run(run())
    assert whole_models(tmp_path) == {f"{NAME} {ONE_FILE}": ONE[ONE_FILE]}
    assert list(files_in(tmp_path).values()) == [ONE[ONE_FILE]], "something is left over"


def test_eight_files_at_once_through_all_kinds_of_trouble(hub: HubServer, tmp_path: Path) -> None:
    hub.repos["user/toy"] = dict(PARTS)
    names = list(PARTS)
    hub.troubles[names[0]] += [Trouble(cut_after=20_000), Trouble(cut_after=0)]
    hub.troubles[names[1]] += [Trouble(status=503), Trouble(status=429)]
    hub.troubles[names[2]] += [Trouble(cut_after=16_384), Trouble(is_whole=True)]
    hub.troubles[names[3]] += [Trouble(cut_after=30_000), Trouble(status=500)]
    hub.troubles[names[4]] += [Trouble(headers={"Content-Range": "bytes 0-5/6"})]
    hub.pace_s = 0.005

    async def run() -> None:
        async with pulling(settings_of(hub, tmp_path)) as pull:
            events = await pull.pull(NAME)
            assert kinds(events)[-1] is EventType.SUCCESS
            sizes = [event.task["downloadedBytes"] for event in events]
            assert sizes[-1] == sum(map(len, PARTS.values()))

    asyncio.run(run())
    assert whole_models(tmp_path) == {f"{NAME} {name}": data for name, data in PARTS.items()}
    assert len(files_in(tmp_path)) == 8
    assert hub.most_open > 2, "the files came one after another"
    ranges = [
        [seen.range for seen in hub.requests_of(name) if seen.path.startswith("/cdn")]
        for name in names
    ]
    # What a client has not read yet when the connection ends is lost.
    assert len(ranges[0]) == 3 and set(ranges[0]) <= {"", "bytes=16384-", "bytes=20000-"}
    assert len(ranges[2]) == 2, "a whole file in place of its rest is taken"


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (Trouble(content=content(99)), "damaged"),
        (Trouble(content=content(0, 99_999)), "metadata says 100000"),
        (Trouble(content=content(0, 100_001)), "metadata says 100000"),
        (Trouble(status=404), "is not there"),
        (Trouble(status=403), "terms"),
        (Trouble(status=418), "418"),
        (Trouble(status=500), "500, 6 times in a row"),
        (Trouble(cut_after=0), "6 times in a row"),
        (Trouble(hangs=True), "no byte came for 0.05 s, 6 times in a row"),
        (Trouble(headers={"Content-Encoding": "gzip"}), "compressed"),
        (Trouble(redirect="http://localhost:1/elsewhere"), "only https is followed"),
        (Trouble(redirect="ftp://127.0.0.1/elsewhere"), "no address"),
    ],
)
def test_an_error_has_its_reason_and_nothing_stays(
    hub: HubServer, tmp_path: Path, trouble: Trouble, reason: str
) -> None:
    hub.always[ONE_FILE] = trouble
    stall_s = 0.05 if trouble.hangs else 20.0

    async def run() -> None:
        async with pulling(settings_of(hub, tmp_path, stall_s=stall_s)) as pull:
            events = await pull.pull(NAME)
            assert kinds(events) == [EventType.STARTED, EventType.ERROR]
            task = events[-1].task
            assert reason in task["error"] and reason in task["items"][0]["error"], task["error"]

    asyncio.run(run())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_beginning_is_fetched_anew_once(hub: HubServer, tmp_path: Path) -> None:
    """A power cut may leave zeros where bytes were."""
    hub.always[ONE_FILE] = Trouble(cut_after=40_000)

    async def broken() -> None:
        async with pulling(settings_of(hub, tmp_path, max_tries=1)) as pull:
            assert kinds(await pull.pull(NAME))[-1] is EventType.ERROR

    asyncio.run(broken())
    [(name, data)] = files_in(tmp_path).items()
    assert name.endswith(".part") and ONE[ONE_FILE].startswith(data) and data
    (tmp_path / name).write_bytes(bytes(len(data)))
    del hub.always[ONE_FILE]

    async def again() -> None:
        async with pulling(settings_of(hub, tmp_path)) as pull:
            assert kinds(await pull.pull(NAME))[-1] is EventType.SUCCESS

    asyncio.run(again())
    assert list(files_in(tmp_path).values()) == [ONE[ONE_FILE]]


def test_a_file_that_fails_leaves_the_others_and_a_task_the_other_tasks(
    hub: HubServer, tmp_path: Path
) -> None:
    hub.repos["user/parts"] = dict(PARTS)
    bad, *good = PARTS
    hub.always[bad] = Trouble(content=b"x" * len(PARTS[bad]))

    async def run() -> None:
        async with pulling(settings_of(hub, tmp_path)) as pull:
            fails = await pull.downloads.pull("user/parts")
            works = await pull.downloads.pull(NAME)
            events = await pull.over(fails)
            assert kinds(events)[-1] is EventType.ERROR
            assert "1 of 8 files did not come" in events[-1].task["error"]
            states = {item["id"]: item["state"] for item in events[-1].task["items"]}
            assert states == {bad: "error", **dict.fromkeys(good, "success")}
            assert kinds(await pull.over(works))[-1] is EventType.SUCCESS
            # What came is not fetched twice.
            del hub.always[bad]
            hub.seen.clear()
            assert kinds(await pull.pull("user/parts"))[-1] is EventType.SUCCESS
            assert {seen.path.rpartition("/")[2] for seen in hub.seen if "cdn" in seen.path} == {
                bad
            }

    asyncio.run(run())
    assert len(whole_models(tmp_path)) == 9 and len(files_in(tmp_path)) == 9


def test_a_task_is_stopped_at_once_whether_it_runs_or_waits(hub: HubServer, tmp_path: Path) -> None:
    hub.repos["user/other"] = dict(ONE)
    hub.pace_s = 0.02

    async def run() -> None:
        async with pulling(settings_of(hub, tmp_path, max_tasks=1)) as pull:
            runs = await pull.downloads.pull(NAME)
            waits = await pull.downloads.pull("user/other")
            assert await pull.downloads.pull("user/toy") is runs, "the same task"
            while not runs.n_done:
                await asyncio.sleep(0.005)
            assert pull.downloads.stop("user/other") is waits and waits.state == "stopped"
            assert kinds(await pull.over(waits)) == [EventType.STOPPED]
            assert pull.downloads.stop(NAME) is runs and runs.is_over
            assert pull.downloads.stop(NAME) is None
            assert kinds(await pull.over(runs)) == [EventType.STARTED, EventType.STOPPED]
            hub.pace_s = 0.0
            n_done = runs.n_done
            assert kinds(await pull.pull(NAME))[-1] is EventType.SUCCESS
            last = hub.requests_of(ONE_FILE)[-1]
            assert last.range and int(last.range[6:-1]) >= n_done, "it began anew"

    asyncio.run(run())
    assert len(whole_models(tmp_path)) == 1 and len(files_in(tmp_path)) == 1


def test_a_disk_without_room_is_told_before_anything_is_fetched(
    hub: HubServer, tmp_path: Path
) -> None:
    async def run() -> None:
        async with pulling(settings_of(hub, tmp_path, spare_bytes=1 << 60)) as pull:
            events = await pull.pull(NAME)
            assert kinds(events) == [EventType.STARTED, EventType.ERROR]
            assert "0.00 GB more" in events[-1].task["error"]
            assert "dllama rm" in events[-1].task["error"]

    asyncio.run(run())
    assert not [seen for seen in hub.seen if "resolve" in seen.path]
    assert list(tmp_path.iterdir()) == []


def test_the_token_goes_to_the_hub_alone(hub: HubServer, tmp_path: Path) -> None:
    hub.secret = "hf_sesame"
    with hub_server() as elsewhere:
        elsewhere.repos, hub.cdn = hub.repos, elsewhere.url

        async def run() -> None:
            settings = settings_of(hub, tmp_path, find_token=lambda: "hf_sesame")
            assert "sesame" not in repr(settings)
            async with pulling(settings) as pull:
                assert kinds(await pull.pull(NAME))[-1] is EventType.SUCCESS
                assert "sesame" not in str(pull.events) and "signature" not in str(pull.events)
            async with pulling(settings_of(hub, tmp_path)) as pull:
                with pytest.raises(NotOnHub, match="HF_TOKEN"):
                    await pull.downloads.pull(NAME)

        asyncio.run(run())
        assert {seen.authorization for seen in hub.seen} == {"Bearer hf_sesame", ""}
        assert [seen.authorization for seen in elsewhere.seen] == [""]


def test_what_the_hub_cannot_answer_is_told(hub: HubServer, tmp_path: Path) -> None:
    async def refused(name: str, kind: type[HubError], **more: object) -> str:
        async with pulling(settings_of(hub, tmp_path, **more)) as pull:
            with pytest.raises(kind) as error:
                await pull.downloads.pull(name)
            return str(error.value)

    async def run() -> None:
        assert "short name" in await refused("nothing", ModelNameError)
        assert "user/none is not there" in await refused("user/none:Q4_0", NotOnHub)
        assert "it has Q4_0" in await refused("user/toy:Q8_0", NotOnHub)
        assert "HF_HUB_OFFLINE" in await refused(NAME, HubError, is_offline=True)
        hub.troubles["listing"] += [Trouble(status=503)] * 2
        async with pulling(settings_of(hub, tmp_path)) as pull:
            assert kinds(await pull.pull(NAME))[-1] is EventType.SUCCESS
        hub.always["listing"] = Trouble(status=503)
        assert "Try again later" in await refused(NAME, HubError)
        hub.always["listing"] = Trouble(content=b"<html>sign in</html>")
        assert "is no hub" in await refused(NAME, HubError)

    asyncio.run(run())
    assert not (tmp_path / UNFINISHED).exists()


def test_a_file_of_the_web_is_checked_by_the_digest_in_its_name(
    hub: HubServer, tmp_path: Path
) -> None:
    url = f"{hub.url}/cdn/user/toy/{ONE_FILE}"
    right = hashlib.sha256(ONE[ONE_FILE]).hexdigest()

    async def run() -> None:
        async with pulling(settings_of(hub, tmp_path)) as pull:
            events = await pull.pull(f"{url}#sha256={'0' * 64}")
            assert "arrived damaged" in events[-1].task["error"]
            assert list(tmp_path.iterdir()) == []
            assert (await pull.pull(f"{url}#sha256={right}"))[-1].type is EventType.SUCCESS
            events = await pull.pull(f"{hub.url}/user/toy/resolve/main/{ONE_FILE}")
            assert events[-1].task_id == f"hf.co/user/toy/{ONE_FILE}"
            for wrong in (
                "http://example.invalid/a.gguf",
                "https://u:p@h/a.gguf",
                f"{hub.url}/a.x",
            ):
                with pytest.raises(HubError):
                    await pull.downloads.pull(wrong)

    asyncio.run(run())
    assert len(whole_models(tmp_path)) == 2


def test_a_file_of_the_web_that_has_changed_is_not_gone_on_with(
    hub: HubServer, tmp_path: Path
) -> None:
    """Neither by a later download, nor within one."""
    url, other = f"{hub.url}/cdn/user/toy/{ONE_FILE}", content(1)
    cut = [Trouble(), Trouble(cut_after=40_000)]  # the first answer says how large it is

    async def run() -> None:
        async with pulling(settings_of(hub, tmp_path / "a", max_tries=1)) as pull:
            hub.troubles[ONE_FILE].extend(cut)
            assert (await pull.pull(url))[-1].type is EventType.ERROR
            hub.repos["user/toy"] = {ONE_FILE: other}
            assert (await pull.pull(url))[-1].type is EventType.SUCCESS
        hub.repos["user/toy"] = dict(ONE)
        async with pulling(settings_of(hub, tmp_path / "b")) as pull:
            hub.troubles[ONE_FILE].extend([*cut, Trouble(content=other)])
            assert (await pull.pull(url))[-1].type is EventType.SUCCESS
        async with pulling(settings_of(hub, tmp_path / "c", max_tries=1)) as pull:
            hub.troubles[ONE_FILE].extend(cut)
            assert (await pull.pull(url))[-1].type is EventType.ERROR
            assert (await pull.pull(url))[-1].type is EventType.SUCCESS

    asyncio.run(run())
    for name, expected in (("a", other), ("b", other), ("c", ONE[ONE_FILE])):
        assert list(whole_models(tmp_path / name).values()) == [expected], name
    last = hub.requests_of(ONE_FILE)[-1]
    assert last.range and last.range != "bytes=0-0", "it began anew"


def test_a_task_that_is_stopped_before_its_first_step_can_be_pulled_again(
    hub: HubServer, tmp_path: Path
) -> None:
    async def run() -> None:
        async with pulling(settings_of(hub, tmp_path, max_tasks=1)) as pull:
            task = await pull.downloads.pull(NAME)
            pull.downloads.stop(task.id)
            assert kinds(await pull.pull(NAME))[-1] is EventType.SUCCESS
            assert pull.downloads.busy() == set()

    asyncio.run(run())


def test_a_stopped_task_keeps_its_folder_until_all_its_threads_are_done(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repos["user/toy"] = dict(PARTS)
    begun, may_end = threading.Event(), threading.Event()
    finish = PartialFile.finish

    def slow(part: PartialFile) -> Checksum:
        begun.set()
        may_end.wait(60)
        return finish(part)

    monkeypatch.setattr(PartialFile, "finish", slow)
    for name in list(PARTS)[1:]:
        hub.always[name] = Trouble(hangs=True)

    async def run() -> None:
        async with pulling(settings_of(hub, tmp_path)) as pull:
            task = await pull.downloads.pull(NAME)
            while not begun.is_set():
                await asyncio.sleep(0.005)
            pull.downloads.stop(NAME)
            await asyncio.sleep(0.1)
            assert pull.downloads.busy() == {task.id}
            may_end.set()
            await pull.over(task)
            hub.always.clear()
            assert kinds(await pull.pull(NAME))[-1] is EventType.SUCCESS

    asyncio.run(run())
    assert list(whole_models(tmp_path).values()) == list(PARTS.values())
