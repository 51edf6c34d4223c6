"""Errors that a person can cause and put right."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input: the message is one clear sentence that says what is wrong and what to do.

    The command line prints it on one line and exits with code 2; the page shows it as it is.
    """
