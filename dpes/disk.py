"""Files written whole or not at all, read with care, in directories held by one process."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch
from safetensors.torch import save as to_bytes
from torch import Tensor

from .errors import RunError, SettingsError, shown


def path_of(value: Any, name: str) -> Path:
    """A path that a user gave, ``~`` and all."""
    try:
        path = Path(value).expanduser()
        if "\0" not in str(path):
            return path
    except (TypeError, RuntimeError):  # RuntimeError: a home that is not known
        pass
    raise SettingsError(f"{name} = {shown(value)}: must be a path")


def write_bytes(path: Path, value: bytes) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(path.name + ".part")
    try:
        partial.write_bytes(value)
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file; an object begins with the checksum of all that follows in the file."""
    text = json.dumps(value, indent=1) + "\n"
    if isinstance(value, dict) and value:
        rest = text.removeprefix("{\n")
        text = f'{{\n "checksum": "{hashlib.sha256(rest.encode()).hexdigest()}",\n{rest}'
    write_bytes(path, text.encode())


# an object with a checksum, also where a byte of its first line has changed
SEALED = re.compile(rb".{16}(?P<sum>[0-9a-f]{63}.|.[0-9a-f]{63}).{3}", re.DOTALL)


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], header: dict[str, str] | None = None
) -> None:
    """Write a safetensors file."""
    # not by ``save_file``: its files only their owner can read, and a full disk is no OSError to it
    write_bytes(path, tensor_bytes(tensors, header))


def tensor_bytes(tensors: Mapping[str, Tensor], header: dict[str, str] | None = None) -> bytes:
    """The bytes of a safetensors file."""
    return to_bytes({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, header)


def digest(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """SHA-256 of tensors: of their names, types, shapes and values, and of a text beside them."""
    total = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        value = tensor.detach().cpu().contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def write_arrays(path: Path, **arrays: Any) -> None:
    """Write an npz file."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    write_bytes(path, file.getvalue())


def damaged(path: Path, why: object, cure: str = "") -> RunError:
    """The error for a file that is not as it was written; the usual cure is that of a run."""
    cure = cure or f"restore it, or delete {path.parent} and run again"
    return RunError(f"{path}: damaged ({why}); {cure}")


def read_json(path: Path, cure: str = "") -> Any:
    """What ``write_json`` wrote, or older files without checksums; ``RunError`` for damaged ones,
    with a cure of their own if they have one.
    """
    try:
        raw = path.read_bytes()
        verify(path, raw)
        value = json.loads(raw)
    # a ValueError too: bytes that are no text, a number of 5,000 digits
    except (OSError, ValueError, RecursionError) as error:
        cure = cure or f"restore it, or delete {path.parent} and run again"
        raise RunError(f"{path}: cannot be read ({type(error).__name__}); {cure}") from None
    if head := SEALED.match(raw):
        own = hashlib.sha256(raw[head.end() :]).hexdigest()
        if head[0] != f'{{\n "checksum": "{own}",\n'.encode():
            raise damaged(path, "its checksum differs", cure)
        del value["checksum"]
    elif isinstance(value, dict) and "checksum" in value:
        raise damaged(path, "its checksum is not where it was written", cure)
    return value


def read_entries(path: Path, *names: str, cure: str = "") -> dict[str, Any]:
    """A JSON file that holds at least these entries; raises ``RunError`` for any other."""
    stored = read_json(path, cure)
    missing = ["JSON object"]
    if isinstance(stored, dict):
        missing = [name for name in names if name not in stored]
    if missing:
        raise damaged(path, f"no {missing[0]} in it", cure)
    return stored


SUMS = "SHA256SUMS"  # of published files that hold no checksum of their own; see data/README.md


def verify(path: Path, raw: bytes) -> None:
    """Raises ``RunError`` if a list of checksums in a folder above has another one of this file."""
    if SEALED.match(raw):
        return  # made again since, with a checksum of its own
    full = path.resolve()
    for folder in full.parents[:4]:
        if (folder / SUMS).exists():
            wanted = sums(folder / SUMS).get(full.relative_to(folder).as_posix())
            if wanted not in (None, hashlib.sha256(raw).hexdigest()):
                cure = "restore both from the repository"
                raise damaged(path, f"not as in {folder / SUMS}", cure)
            return


@cache
def sums(file: Path) -> dict[str, str]:
    lines = [line.partition("  ") for line in file.read_text().splitlines()]
    return {name: value for value, _, name in lines}


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a run directory; a second process is refused by the first one's pid and host. A dead
    owner's lock is free.
    """
    lock, owner = filelock.FileLock(path / "lock", timeout=0), path / "owner"
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
    except filelock.Timeout:
        who = owner.read_text().strip() if owner.exists() else "another process"
        raise RunError(f"{path}: in use by {who}; wait for it or stop it") from None
    except (FileExistsError, NotADirectoryError):
        raise RunError(f"{path}: is a file, not a folder; name another one") from None
    except OSError as error:
        problem = f"cannot be written ({error.strerror or error})"
        raise RunError(f"{path}: {problem}; name another one, or put that right") from None
    try:
        yield
    except BrokenPipeError:  # of whoever reads what is printed
        raise
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        cure = "once that is put right, the same command continues"
        raise RunError(f"{path}: {error.strerror or error}{place}; {cure}") from error
    finally:
        for leftover in (owner, path / "lock"):
            leftover.unlink(missing_ok=True)
        lock.release()


def difference(a: Any, b: Any, name: str = "") -> str:
    """The first entry in which two nested dictionaries differ, in words; tables are compared row by
    row.
    """
    if all(isinstance(t, list) and t and isinstance(t[0], list) for t in (a, b)):
        if len(a) != len(b):
            return f"{name} has {len(a)} entries, not {len(b)}"
        a, b = (dict(enumerate(table)) for table in (a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            if a.get(key) != b.get(key):
                return difference(a.get(key), b.get(key), f"{name}.{key}" if name else key)
    return f"{name} is {a!r}, not {b!r}"
