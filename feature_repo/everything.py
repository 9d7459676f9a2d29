"""What Feast's own command line finds here: every definition, over sources the environment names."""

import os
from pathlib import Path

from feature_repo.definitions import definitions

# Feast looks for objects under names in modules; a list of them would be passed over.
globals().update(
    {object_.name: object_ for object_ in definitions(Path(os.environ.get("RANKLINE_FEATURES", "sources")).resolve())}
)
