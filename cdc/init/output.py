"""Where the starter file goes: never over a file that is there."""

from __future__ import annotations

import os
from pathlib import Path

from cdc.init.errors import FileInTheWay


def refuse_to_overwrite(path: Path) -> None:
    """Raise FileInTheWay when there is something at `path` already, or nothing can be put there."""
    if path.exists() or path.is_symlink():
        raise FileInTheWay(f"{path} is there already, and is not overwritten")
    if not path.parent.is_dir():
        raise FileInTheWay(f"{path} cannot be written: there is no folder {path.parent}")


def write_new(path: Path, text: str) -> None:
    """Make the file with all of its text, or none of it. Raises FileInTheWay when somebody was faster."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(unfinished)  # a rename would replace what is there
    except FileExistsError:
        raise FileInTheWay(f"{path} is there already, and is not overwritten") from None
    except OSError as error:
        raise FileInTheWay(f"{path} cannot be written: {error.strerror}") from error
    finally:
        unfinished.unlink(missing_ok=True)
