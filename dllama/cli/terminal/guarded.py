"""What surrounds every command: errors meant for users become one sentence and an exit code."""

from __future__ import annotations

from collections.abc import Callable

from dllama.cli.terminal.ending import in_order
from dllama.cli.terminal.streams import give_up_stdout, prepare_streams, stdout_error

FAILED = 1
INTERRUPTED = 130  # 128 + SIGINT, as shells count
CUT_OFF = 141  # 128 + SIGPIPE: who reads the output has seen enough


def guarded(main: Callable[[list[str] | None], int]) -> Callable[[], int]:
    """Makes a console command of a function that takes its arguments and returns an exit code."""

    def run() -> int:
        prepare_streams()
        try:
            with in_order():
                code = _with_sentences(main)
        except KeyboardInterrupt:
            from dllama.cli.terminal.output import note

            note("interrupted")
            code = INTERRUPTED
        cause = stdout_error()
        if cause is None:
            return code
        give_up_stdout()
        if isinstance(cause, BrokenPipeError):
            return CUT_OFF
        _complain(f"the output cannot be written ({cause.strerror}); check where stdout leads to.")
        return FAILED

    return run


def _with_sentences(main: Callable[[list[str] | None], int]) -> int:
    """Runs the command; says what went wrong, but for what went wrong with stdout."""
    from dllama.errors import DllamaError

    try:
        return main(None)
    except SystemExit as end:  # argparse ends commands so
        if isinstance(end.code, str):
            _complain(end.code)
        return end.code if isinstance(end.code, int) else FAILED if end.code else 0
    except DllamaError as error:
        _complain(str(error))
    except MemoryError as error:
        _complain(f"there is not enough memory ({error or 'the system has no more to give'}).")
    except OSError as error:
        if stdout_error() is None:
            what = f"{error.filename}: " if error.filename else ""
            _complain(f"the system refused something: {what}{error.strerror or error}.")
    return FAILED


def _complain(text: str) -> None:
    from dllama.cli.terminal.output import complain  # here: a command that works needs no colours

    complain(text)
