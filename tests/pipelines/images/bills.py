"""What a bill of materials lists."""

from __future__ import annotations

import json
from pathlib import Path


def package_names(path: Path) -> set[str]:
    """The names of the Python packages in a bill of materials."""
    components = json.loads(path.read_text())["components"]
    return {each["name"].lower() for each in components if each.get("purl", "").startswith("pkg:pypi/")}
