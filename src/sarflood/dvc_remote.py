"""The DVC remote: pushed to, and what goes wrong with it told by whether another try can help.

DVC is called in this process and not as a command: only its exceptions tell a remote that does not
answer from one that is set wrongly.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sarflood.errors import InputError, NetworkError, SarfloodError

if TYPE_CHECKING:
    from dvc.repo import Repo

# What a file system of the network, or S3's kind of server by way of its library, may get over.
_PASSES = {
    errno.EBUSY,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.EIO,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENOTCONN,
    errno.EREMOTEIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
}
# What Python, botocore, aiohttp and requests call it.
_NO_ANSWER = {
    "ConnectionError",
    "ClientConnectionError",
    "HTTPClientError",
    "TimeoutError",
    "gaierror",
}


@contextmanager
def dvc_remote(root: Path, doing: str) -> Iterator[Repo]:
    """Open DVC's repository for work with its remote, and tell what goes wrong in the block.

    Args:
        root: The workspace's root.
        doing: What is done in the block, such as `dvc push`; begins the message.

    Raises:
        NetworkError: The remote does not answer, breaks off, or is a folder that is not there.
        InputError: No remote is set.
        SarfloodError: Anything else is wrong with it.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    with _Logged() as logged, Repo(str(root)) as repo:
        try:
            yield repo
        except SarfloodError:
            raise
        except Exception as error:
            where = _check_there(repo, doing)
            # Of files that failed one by one DVC raises how many, and logs why.
            cause = logged.first if logged.first and isinstance(error, DvcException) else error
            raise _told(f"{doing}: the DVC remote {where}", cause) from error


def push(root: Path, target: str | None = None) -> None:
    """Push what the DVC files in `root` name, or that one of them, and is not in the remote yet.

    Raises:
        NetworkError, InputError, SarfloodError: As `dvc_remote`.
    """
    doing = "`dvc push`"
    with dvc_remote(root, doing) as repo:
        _check_there(repo, doing)  # DVC would make a folder whose disk is not mounted anew
        repo.push(str(root / target) if target else None)


def _check_there(repo: Repo, doing: str) -> str:
    """Return the remote's address; refuse a folder that is not there."""
    from dvc.config import ConfigError

    try:
        remote = repo.cloud.get_remote()
    except ConfigError as error:
        raise InputError(
            f"{doing}: {repo.root_dir} has no usable DVC remote ({error}); "
            "`dvc remote add --default storage URL`"
        ) from error
    if remote.fs.protocol != "local":
        return str(remote.fs.unstrip_protocol(remote.path))
    if not remote.fs.exists(remote.path):
        raise NetworkError(
            f"{doing}: the DVC remote {remote.path} is not there; mount its disk, or make the "
            "folder if nothing was ever pushed to it"
        )
    return str(remote.path)


def _told(what: str, cause: BaseException) -> SarfloodError:
    said = str(cause) or type(cause).__name__
    if any(_may_pass(error) for error in _chain(cause)):
        return NetworkError(f"{what} does not answer ({said}); try again when it does")
    return SarfloodError(
        f"{what} fails ({said}); is all there that it should have, and is it set right? "
        "`dvc remote list` names it, `dvc push -v` says more"
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in _PASSES:
        return True
    return any(kind.__name__ in _NO_ANSWER for kind in type(error).__mro__)


class _Logged(logging.Handler):
    """Keeps the first error that DVC only logs while the block runs."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.first: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and self.first is None:
            self.first = record.exc_info[1]

    def __enter__(self) -> Self:
        for name in _LOGGERS:
            logging.getLogger(name).addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        for name in _LOGGERS:
            logging.getLogger(name).removeHandler(self)


_LOGGERS = ("dvc_data", "dvc_objects")
