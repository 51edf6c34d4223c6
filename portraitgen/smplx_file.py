"""Where a person's own SMPL-X file lies: it may not be passed on, so everyone brings theirs."""

from __future__ import annotations

import os
from pathlib import Path

from . import weights
from .errors import InputError
from .weights_table import Entry

SMPLX, SMPLX_SITE = "SMPLX_NEUTRAL.npz", "https://smpl-x.is.tue.mpg.de"


def find_smplx() -> Path:
    """The person's own SMPL-X file: where ``SMPLX_DIR`` says, below `weights.ROOT`, or in the Hub repository ``SMPLX_REPO``.

    Raises:
        InputError: it is in none of these places, or the repository cannot be read.
    """
    given = os.environ.get("SMPLX_DIR")
    folder = Path(given).expanduser() if given else weights.ROOT
    for place in (folder, folder / SMPLX, folder / "smplx" / SMPLX, folder / "models" / "smplx" / SMPLX):
        if place.is_file():
            return place
    if given:
        raise InputError(f"SMPLX_DIR is {given}, where there is no {SMPLX}. Name the folder that holds it.")
    repo = os.environ.get("SMPLX_REPO")
    if repo:
        return _smplx_from_hub(repo)
    raise InputError(
        f"There is no {SMPLX}. Register at {SMPLX_SITE}, download the model and put this file into {weights.ROOT}, "
        "or leave out --body smplx."
    )


def _smplx_from_hub(repo: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
    )

    entry = Entry("smplx", repo, "main", ((SMPLX,),), 0, "", True, "the body smplx")
    with weights.clear_errors(entry):
        try:
            return Path(hf_hub_download(repo, SMPLX))
        except HFValidationError:
            raise InputError(f"SMPLX_REPO is {repo}, which is no repository. Write it as OWNER/NAME.") from None
        except (GatedRepoError, RepositoryNotFoundError):
            raise InputError(
                f"The repository {repo} in SMPLX_REPO cannot be read. Check its name, and set HF_TOKEN to a token that may."
            ) from None
        except RemoteEntryNotFoundError:
            raise InputError(f"The repository {repo} in SMPLX_REPO holds no {SMPLX}. Put the file there.") from None
