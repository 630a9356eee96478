"""Which line of the user's own code an exception is about; it must never import or run any of that code.

The user's is what is neither this package, nor Python's own library, nor an installed package.
"""

from __future__ import annotations

import re
import sysconfig
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from compressor.errors import CompressError, named_line

_OURS = Path(__file__).parent.as_posix() + "/"
_INSTALLED = tuple(
    Path(path).as_posix() + "/"
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
    if (path := sysconfig.get_path(name))
)
_FRAME = re.compile(
    r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)(?:\n {4,}(?!File ")(?P<code>\S[^\n]*))?'
)


def is_the_users(file: str) -> bool:
    """Whether a file of source is the user's."""
    path = Path(file).as_posix()
    if file.startswith("<") or any(part in path for part in ("/site-packages/", "/dist-packages/", "/torch/")):
        return False
    return not path.startswith((_OURS, *_INSTALLED))


def innermost_line(stack_trace: str, counts: Callable[[str], bool] = is_the_users) -> str:
    """`net.py:12 x = self.conv(x)`: the innermost frame whose file counts; "" if there is none."""
    own = [m.groupdict() for m in _FRAME.finditer(stack_trace) if counts(m["file"])]
    if not own:
        return ""
    frame = own[-1]
    file = frame["file"].replace("\\", "/").rsplit("/", 1)[-1]
    return f"{file}:{frame['line']} {(frame['code'] or '').strip()}".strip()[:160]


def line_of(error: BaseException) -> str:
    """The same of an exception, or of the one that a worker process sent as text; "" where no line is the user's."""
    if isinstance(error, SyntaxError) and error.filename and is_the_users(error.filename):
        return f"{Path(error.filename).name}:{error.lineno} {(error.text or '').strip()}"[:160]
    return innermost_line("".join(traceback.format_tb(error.__traceback__))) or innermost_line(str(error))


def is_users_fault(error: BaseException) -> bool:
    """Whether it left the user's code on its way here without this package's having been called by that."""
    if "Original Traceback" in str(error):  # a worker process of a DataLoader
        return bool(innermost_line(str(error)))
    frames = traceback.extract_tb(error.__traceback__)
    mine = (i for i, frame in enumerate(frames) if frame.filename.replace("\\", "/").startswith(_OURS))
    return any(is_the_users(frame.filename) for frame in frames[max(mine, default=-1) + 1 :])


@contextmanager
def called(what: str, error: type[CompressError]) -> Generator[None]:
    """Around a call of the user's code; `what` names it in the message.

    Raises:  `error` for any exception, naming it and the user's line; errors of this package pass as they are.
    """
    try:
        yield
    except (CompressError, MemoryError):
        raise
    except Exception as cause:
        line = line_of(cause)
        raise error(f"{what} raised {_told(cause)}" + (f"\nin {line}" if line else "")) from cause


def _told(cause: Exception) -> str:
    """Class and first line; of a worker's exception those of the original one, which come last."""
    if "Original Traceback" not in str(cause):
        return named_line(cause)
    return str(cause).strip().splitlines()[-1][:200]
