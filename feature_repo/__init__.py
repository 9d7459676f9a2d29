"""Feast's feature definitions and stores. Importing this package imports Feast."""

from rankline.runtime.lazy_imports import import_feast

import_feast()
