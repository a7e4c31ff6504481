"""Exceptions that nobody has foreseen, in processes of their own whose log is JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict

import pytest

from cluster.worker.session_config import SessionConfig
from dllama.cli.flags.arguments import DEFAULT_MODEL
from dllama.cli.flags.settings import EngineSettings
from dllama.logs.settings import LogSettings
from tests.ports import own_port, own_worker_port

BOOM = """
def boom(*args, **more):
    raise RuntimeError("of two\\nlines")
"""


def run_python(code: str, told: bytes = b"", *words: str) -> tuple[int, list[str]]:
    """Returns the exit code and the lines of stderr."""
    done = subprocess.run(
        [sys.executable, "-c", BOOM + code, *words], input=told, capture_output=True, timeout=120
    )
    return done.returncode, done.stderr.decode().splitlines()


def lines_of(found: list[str]) -> list[dict[str, str]]:
    """Fails where a line is no object."""
    return [json.loads(line) for line in found]


LOG = "from dllama.logs.settings import *; set_up_logging(LogSettings('error', 'json'), rank=3)\n"
WAYS = {
    "main": ("boom()", 1, "nobody has caught RuntimeError"),
    "thread": (
        "import threading; t = threading.Thread(target=boom, name='beats'); t.start(); t.join()",
        0, "the thread beats ends",
    ),
    "task": (
        "import asyncio, gc\nasync def main():\n    asyncio.create_task(asyncio.sleep(0, boom))\n"
        "    async def fails(): boom()\n    task = asyncio.create_task(fails())\n"
        "    await asyncio.sleep(0.01); del task; gc.collect()\nasyncio.run(main())",
        0, "Task exception was never retrieved",
    ),
    "callback": (
        "import asyncio\nasync def main():\n    asyncio.get_running_loop().call_soon(boom)\n"
        "    await asyncio.sleep(0.01)\nasyncio.run(main())",
        0, "Exception in callback",
    ),
    "finalizer": (
        "class Thing:\n    __del__ = boom\nThing()", 0, "an exception was ignored in",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("code", "exit_code", "message"), WAYS.values(), ids=WAYS)
def test_an_exception_is_one_line_with_its_traceback(
    code: str, exit_code: int, message: str
) -> None:
    found_code, lines = run_python(LOG + code)
    [found] = lines_of(lines)
    assert found_code == exit_code == run_python(code)[0], "as without a log"
    assert message.lower() in found["message"].lower()
    assert found["level"] == "error" and found["rank"] == 3
    trace = found["exception"]
    assert trace.startswith("Traceback") and "RuntimeError: of two\nlines" in trace


def test_a_line_that_cannot_be_made_is_a_line_too() -> None:
    [found] = lines_of(run_python(LOG + "logging.getLogger('api').error('%d', 'x')")[1])
    assert found["message"] == "a line of the log of api could not be written"
    assert "TypeError" in found["exception"]


def test_an_end_that_was_meant_and_lines_for_people_stay_as_they_were() -> None:
    code = "import threading; t = threading.Thread(target=lambda: exit(3)); t.start(); t.join()\n"
    assert run_python(LOG + code + "raise SystemExit(7)") == (7, [])
    for_people = LOG.replace("json", "text") + "boom()"
    exit_code, lines = run_python(for_people)
    assert exit_code == 1 and lines == run_python("#\nboom()")[1]


def programs() -> dict[str, tuple[str, bytes, tuple[str, ...]]]:
    """The code that runs each program with a fault of ours in it, what it reads, and its flags."""
    flags = ("--log-format", "json", "--port")
    settings = EngineSettings(model=str(DEFAULT_MODEL), threads=1, name="toy").to_json()
    told = {
        "endpoint": "inproc://x",
        "settings": settings,
        "log": asdict(LogSettings("info", "json")),
    }
    session = SessionConfig(
        host="127.0.0.1", port=1, threads=1, epoch=1, rank=1, world_size=2, sync_type="f32",
        progress_path="", report_endpoint="", log_format="json",
    )  # fmt: skip
    end = "import sys; sys.argv[0] = 'x'; sys.exit({}())\n"
    return {
        "root": (
            "from dllama.cli.server import serving; serving.run_server = boom\n"
            "from dllama.cli.commands.root import main\n" + end.format("main"),
            b"", (*flags, str(own_port())),
        ),
        "worker": (
            "from cluster.worker.daemon import Worker; Worker.run = boom\n"
            "from dllama.cli.commands.worker import main\n" + end.format("main"),
            b"", (*flags, str(own_worker_port())),
        ),
        "engine": (
            "from cluster.engine_server import EngineServer; EngineServer.run = boom\n"
            "from dllama.cli.server.engine import main\n" + end.format("main"),
            json.dumps(told).encode() + b"\n", (),
        ),
        "session": (
            "from cluster.worker import session; session.WorkerSession.__init__ = boom\n"
            "session.end_with_daemon = lambda lifeline: None  # there is no daemon here\n"
            "from dllama.cli.worker_session import main\n" + end.format("main"),
            session.to_line(), (),
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["root", "worker", "engine", "session"])
def test_every_program_ends_with_a_line(name: str) -> None:
    code, told, words = programs()[name]
    exit_code, lines = run_python(code, told, *words)
    found = lines_of(lines)
    assert exit_code == 1 and "RuntimeError (of two" in found[-1]["message"]
    assert "in boom" in found[-1]["exception"]
