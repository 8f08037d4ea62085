"""Logging: structlog for what qiyu says, and the same chain for libraries that use the standard `logging`.

No secret is to be logged in the first place. Two steps stand behind that rule: a value under a name such as
`token` is masked, and, as the very last step, so is whatever in the finished line looks like a login token,
be it in an exception's text or deep inside some object's repr.
"""

from __future__ import annotations

import atexit
import io
import logging
import os
import queue
import re
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal, TextIO, TypeAlias

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

Level: TypeAlias = Literal["debug", "info", "warning", "error"]
Format: TypeAlias = Literal["auto", "human", "json"]

MASK: Final = "********"

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_SECRET_NAME: Final = re.compile(r"token|secret|passw|authorization|cookie|qytk", re.IGNORECASE)
QUEUED_LINES: Final = 10_000
LINE_BYTES: Final = 300
EXIT_SECONDS: Final = 0.5  # for the last lines, when the process ends

# They log, with tracebacks, what is dealt with and told elsewhere: a connection that the database closed, and a machine
# that is out of files.
_NOISY: Final = ("sqlalchemy.pool", "trio.serve_listeners")

_MAX_DEPTH: Final = 6  # of containers looked into; what lies deeper is left out

_SIGNATURE: Final = re.compile(r"\.[A-Za-z0-9_-]{43}")
# A login token as services/tokens.py makes it: `<base64>.<43 of base64>%<appId>`, the % perhaps escaped in a URL.
# Of a run of base64 and dots, all is masked up to its last signature: what touches a token cannot be told from it.
# A run is tried from its start only, so that a long one costs no more than a look. A colour or an escape
# such as \n may touch it, and must stay whole.
_TOKEN: Final = re.compile(
    r"(\x1b\[[0-9;]*m|\\u[0-9a-f]{4}|\\[a-z]|(?<![A-Za-z0-9_.-]))"
    r"[A-Za-z0-9_.-]{16,}\.[A-Za-z0-9_-]{43,}+(?:%(?:25)?[0-9]+)?"
)


def configure_logging(
    level: Level,
    format: Format,  # noqa: A002
    stream: TextIO | None = None,
    *,
    background: bool = False,
) -> None:
    """Send everything that is logged to `stream` (stderr), from `level` on. May be called again.

    `auto` is human on a terminal and json, one object a line, elsewhere. In the background a thread writes, so that a
    stream that does not take what is written (a full disk, a pipe nobody reads) holds up nobody and harms nobody:
    lines that find no room in the queue are dropped, and counted in the next one that does.
    """
    if stream is None:
        stream = sys.stderr or _Nowhere()  # it is None where the shell closed it
    terminal = stream.isatty()
    if background and not isinstance(stream, _Nowhere):
        stream = _in_background(stream)
    human = format == "human" or (format == "auto" and terminal)
    enrich: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    # As plain text: the other formatters of tracebacks show local variables, and so what must not be shown.
    finish: list[Processor] = [structlog.processors.format_exc_info, mask_secrets]
    if human:
        console = structlog.dev.ConsoleRenderer(
            colors=terminal and "NO_COLOR" not in os.environ,
            exception_formatter=structlog.dev.plain_traceback,
        )
        finish += [_escape_controls, _Finished(console)]
    else:
        finish += [_Finished(structlog.processors.JSONRenderer())]

    structlog.configure(
        processors=[*enrich, *finish],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=_LoggerFactory(stream),
        # A cached logger would go on with the chain and the stream of the first call.
        cache_logger_on_first_use=False,
    )
    _remove_handler()
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    handler = _Handler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=enrich,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *finish],
        )
    )
    root = logging.getLogger()
    root.addHandler(handler)
    # What libraries say while they are debugged is of no use here, and may hold what is nobody's business.
    root.setLevel(max(_LEVELS[level], logging.INFO))


def set_level(level: Level) -> None:
    """Log from `level` on; all else stays as `configure_logging` made it."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]))
    logging.getLogger().setLevel(max(_LEVELS[level], logging.INFO))


def reset_logging() -> None:
    """Undo `configure_logging`, as far as others may notice: for tests."""
    _remove_handler()
    logging.getLogger().setLevel(logging.WARNING)
    structlog.reset_defaults()


def mask_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Mask each value whose name says that it is a secret, in nested mappings and lists too."""
    return {name: _masked(name, value, _MAX_DEPTH) for name, value in event.items()}


def mask_tokens(line: str) -> str:
    """Mask whatever in the line looks like a login token."""
    if _SIGNATURE.search(line) is None:  # most lines, so found out the quick way
        return line
    return _TOKEN.sub(rf"\1{MASK}", line)


def _masked(name: object, value: object, depth: int) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value  # token_seconds = 300 is no secret
    if isinstance(name, str) and _SECRET_NAME.search(name):
        return MASK
    if isinstance(value, dict | list | tuple) and not depth:
        return "…"
    if isinstance(value, dict):
        return {str(key): _masked(key, item, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(None, item, depth - 1) for item in value]
    return value


class _Nowhere(io.StringIO):
    """Keeps nothing."""

    def write(self, line: str, /) -> int:
        return len(line)


class _BackgroundStream(io.TextIOBase):
    """Takes lines at once, and has a thread write them."""

    def __init__(self, stream: TextIO) -> None:
        # Not through the stream: its lock, held by a thread that cannot go on, would abort the process when it ends.
        self._fd = stream.fileno()
        self._lines: queue.Queue[str] = queue.Queue(QUEUED_LINES)
        self._dropped = 0
        threading.Thread(target=self._write_all, name="log", daemon=True).start()

    def write(self, line: str, /) -> int:
        """Queue a line, or drop it if the queue is full."""
        try:
            if self._dropped and line.strip():
                self._lines.put_nowait(f"… {self._dropped} log lines were dropped: they could not be written …\n")
                self._dropped = 0
            self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += 1
        return len(line)

    @property
    def waiting(self) -> int:
        """How many lines do."""
        return self._lines.qsize()

    def flush(self) -> None:
        """Nothing to do: the thread flushes."""

    def drain(self, seconds: float) -> None:
        """Wait until all has been written, but no longer than that."""
        until = time.monotonic() + seconds
        while self._lines.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.001)

    def _write_all(self) -> None:
        while True:
            line = self._lines.get()
            data = line.encode(errors="backslashreplace")
            with suppress(OSError):  # full, gone, closed: there is nobody left to tell
                while data:
                    data = data[os.write(self._fd, data) :]
            self._lines.task_done()


def waiting_bytes() -> int:
    """About what the lines take that wait to be written."""
    return LINE_BYTES * sum(each.waiting for each in _backgrounds)


def _in_background(stream: TextIO) -> TextIO:
    background = _BackgroundStream(stream)
    _backgrounds.append(background)
    atexit.register(background.drain, EXIT_SECONDS)
    return background  # type: ignore[return-value]  # of a TextIO, loggers use only write and flush


_backgrounds: Final[list[_BackgroundStream]] = []


class _NamedLogger(structlog.WriteLogger):
    """Writes finished lines; remembers the `__name__` it was made for."""

    def __init__(self, stream: TextIO, name: str) -> None:
        super().__init__(stream)
        self.name = name


class _LoggerFactory:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, name: str = "qiyu", *_: object) -> _NamedLogger:
        return _NamedLogger(self._stream, name)


class _Handler(logging.StreamHandler[TextIO]):
    """A class of our own, so that the next call finds this handler and leaves those of others alone."""


def _remove_handler() -> None:
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, _Handler):
            root.removeHandler(handler)


class _Finished:
    """The last step of the chain: the line as it will be written, with login tokens masked."""

    def __init__(self, renderer: Processor) -> None:
        self._renderer = renderer

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> str:
        return mask_tokens(str(self._renderer(logger, method, event)))


def _escape_controls(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Keep each value on its line and harmless to the terminal: a nickname may hold anything."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            kept = "\n" if name in {"exception", "stack"} else ""
            event[name] = "".join(c if c.isprintable() or c in kept else ascii(c)[1:-1] for c in value)
    return event
