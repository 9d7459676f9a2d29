"""Feature definitions, as Feast likes them: one file a subject. Importing this package imports Feast."""

from rankline.runtime.lazy_imports import import_feast

import_feast()
