"""The software bill of materials of an image, as CycloneDX JSON.

cyclonedx-python-lib, the reference library of the format, writes it and validates it against the schema; the contents
are those that the image reports (pipelines/images/build.py).
"""

from __future__ import annotations

import datetime
import uuid
from pathlib import Path

from pipelines.images.build import BuiltImage
from rankline.errors import IntegrityError


def write_sbom(built: BuiltImage, folder: Path) -> Path:
    """Write the bill of materials of an image into ``folder`` and return its path; it is reproducible.

    Raises:
        IntegrityError: the bill breaks the format's schema.
    """
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model import Property
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator
    from packageurl import PackageURL

    inventory, licence = built.inventory, LicenseFactory()
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_OID, built.image_id))
    created = built.labels.get("org.opencontainers.image.created")
    bom.metadata.timestamp = datetime.datetime.fromisoformat(created or "1970-01-01T00:00:00+00:00")
    bom.metadata.component = Component(
        name=built.reference,
        version=built.image_id,
        type=ComponentType.CONTAINER,
        bom_ref=built.reference,
        properties=[Property(name=name, value=value) for name, value in built.labels.items()],
    )
    bom.components.add(
        Component(
            name="python",
            version=inventory.interpreter,
            type=ComponentType.PLATFORM,
            bom_ref=f"python@{inventory.interpreter}",
            purl=PackageURL("generic", name="python", version=inventory.interpreter),
        )
    )
    for name, version, terms in inventory.python:
        purl = PackageURL("pypi", name=name.lower().replace("_", "-"), version=version)
        bom.components.add(
            Component(
                name=name,
                version=version,
                type=ComponentType.LIBRARY,
                bom_ref=str(purl),
                purl=purl,
                licenses=[licence.make_from_string(terms)] if terms else None,
            )
        )
    qualifiers = {"distro": f"{inventory.distribution}-{inventory.release}"}
    for name, version, architecture in inventory.debian:
        purl = PackageURL("deb", inventory.distribution, name, version, {"arch": architecture, **qualifiers})
        bom.components.add(
            Component(name=name, version=version, type=ComponentType.LIBRARY, bom_ref=str(purl), purl=purl)
        )
    bom.register_dependency(bom.metadata.component, bom.components)
    text = JsonV1Dot6(bom).output_as_string(indent=2)
    if fault := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise IntegrityError("the bill of materials breaks its schema", found=str(fault)[:300], where=built.reference)
    path = folder / f"{built.reference.replace('/', '_').replace(':', '_')}.cdx.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")
    return path
