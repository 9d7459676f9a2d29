"""The images that the steps run in; a release pins them to digests.

`rankline build` builds them under these names. `evaluate` is the image `serve` with Kubeflow's executor; no step runs
in `serve` itself (docs/decisions/0007-four-images.md).
"""

import os

TAG = "0.1.0"
DATA = os.environ.get("RANKLINE_IMAGE_DATA", f"rankline/data:{TAG}")
TRAIN = os.environ.get("RANKLINE_IMAGE_TRAIN", f"rankline/train:{TAG}")
EVALUATE = os.environ.get("RANKLINE_IMAGE_EVALUATE", f"rankline/evaluate:{TAG}")
SERVE = os.environ.get("RANKLINE_IMAGE_SERVE", f"rankline/serve:{TAG}")
