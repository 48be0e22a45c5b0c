"""The errors that a user sees, each with the exit code that it ends the command with."""

from __future__ import annotations


class SarfloodError(Exception):
    """Something failed; the message names the file, the value and the remedy."""

    exit_code = 1


class InputError(SarfloodError):
    """Wrong usage or input: the user can mend it."""

    exit_code = 2


class TooLargeError(InputError):
    """It has more bytes or pixels, or takes more time, than is given."""


class DataRefusedError(SarfloodError):
    """An event was refused; its files are in quarantine with their reasons."""

    exit_code = 3


class GateRefusedError(SarfloodError):
    """The gate refused a candidate; the champion stays."""

    exit_code = 4


class NetworkError(SarfloodError):
    """A server or the DVC remote does not answer, or breaks off; the same may work later."""

    exit_code = 5
