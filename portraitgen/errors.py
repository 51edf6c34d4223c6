"""Errors that a person can cause and put right."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input: the message is one clear sentence that says what is wrong and what to do.

    The command line prints it on one line and exits with code 2; the page shows it as it is.
    """


class Overrun(InputError):
    """A call of a shared GPU was ended because it took longer than was reserved for it."""
