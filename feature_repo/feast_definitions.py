"""Module-level definitions for Feast's command line, over the folder that RANKLINE_FEATURES names."""

import os
from pathlib import Path

from feature_repo.definitions import definitions
from feature_repo.profile import read_declared

_SOURCES = Path(os.environ.get("RANKLINE_FEATURES", "sources")).resolve()

# Feast finds objects by their names in a module, not in a list.
globals().update({object_.name: object_ for object_ in definitions(_SOURCES, read_declared(_SOURCES))})
