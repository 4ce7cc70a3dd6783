"""The command line: ``tacit run``, ``compare``, ``list``, ``report``."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from tacit.errors import MissingExtra, PeerError, UserError

_PACKAGE = Path(__file__).parents[1]


def main() -> None:
    """Run the command line. Errors of the user's are one line on stderr and exit status 2; a run
    that failed by itself (a peer, a loss that is not finite) exits with 1."""
    try:
        try:
            from tacit.cli.commands import tacit
        except ModuleNotFoundError as error:
            if error.name not in ("click", "rich"):
                raise
            raise MissingExtra(error.name, "cli") from None
        with _plain_warnings():
            status = tacit(standalone_mode=False)
    except Exception as error:
        status = _report(error)
    except KeyboardInterrupt:
        sys.stderr.write("tacit: stopped; the run folder holds what was done\n")
        status = 130
    sys.exit(status if isinstance(status, int) else 0)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Tacit's own warnings are one line on stderr, without a place in its source."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if category is UserWarning and _PACKAGE in Path(filename).parents:
                # a live bar takes what is written to stderr and stays below it
                sys.stderr.write(f"tacit: warning: {' '.join(str(message).split())}\n")
            else:
                usual(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


def _report(error: Exception) -> int:
    from tacit.errors import TrainingDiverged

    if isinstance(error, UserError | PeerError):
        sys.stderr.write(f"tacit: error: {error}\n")
        return 1 if isinstance(error, TrainingDiverged | PeerError) else 2
    if isinstance(error, OSError):
        sys.stderr.write(f"tacit: error: {error.filename or 'file'}: {error.strerror or error}\n")
        return 2
    message = getattr(error, "format_message", None)  # click's own errors
    if message is None:
        raise error
    sys.stderr.write(f"tacit: error: {message()}\n")
    return 2
