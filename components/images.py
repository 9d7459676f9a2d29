"""The three images the steps run in, named once; a release sets them to digests."""

import os

DATA = os.environ.get("RANKLINE_IMAGE_DATA", "rankline-python-data:0.1.0")
TRAIN = os.environ.get("RANKLINE_IMAGE_TRAIN", "rankline-python-train:0.1.0")
SERVE = os.environ.get("RANKLINE_IMAGE_SERVE", "rankline-python-serve:0.1.0")
