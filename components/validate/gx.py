"""Great Expectations. Importing this module imports the library, which takes seconds."""

from rankline.runtime.lazy_imports import import_great_expectations

gx = import_great_expectations()
