"""The images the steps run in, named once; a release sets them to digests.

`rankline build` makes them under these names. evaluate is the image that serves with Kubeflow's executor on top
(docs/decisions/0007-four-images.md); the flow itself opens no door in `serve`.
"""

import os

TAG = "0.1.0"
DATA = os.environ.get("RANKLINE_IMAGE_DATA", f"rankline/data:{TAG}")
TRAIN = os.environ.get("RANKLINE_IMAGE_TRAIN", f"rankline/train:{TAG}")
EVALUATE = os.environ.get("RANKLINE_IMAGE_EVALUATE", f"rankline/evaluate:{TAG}")
SERVE = os.environ.get("RANKLINE_IMAGE_SERVE", f"rankline/serve:{TAG}")
