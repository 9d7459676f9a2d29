"""Feature definitions, as Feast likes them: one file a subject. Importing this package imports Feast."""

from rankline.lazy import import_feast

import_feast()
