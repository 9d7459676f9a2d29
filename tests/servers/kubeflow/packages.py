"""The packages that are uploaded, and the arguments that a run gives them."""

from __future__ import annotations

import functools
import tempfile
from email import message_from_bytes
from email.policy import HTTP
from pathlib import Path
from typing import Any

import yaml

from tests.servers.kubeflow.answers import Refused

KINDS: dict[str, tuple[type, ...]] = {
    "STRING": (str,), "NUMBER_INTEGER": (int,), "NUMBER_DOUBLE": (int, float), "BOOLEAN": (bool,), "LIST": (list,),
    "STRUCT": (dict,),
}  # fmt: skip


def read_package(file: bytes, filename: str) -> dict[str, Any]:
    """The documents of a package, which fits the rules of the server."""
    if not filename.endswith((".yaml", ".yml", ".zip", ".tar.gz", ".json")):
        raise Refused(400, "Unexpected pipeline file format")
    if problems := _problems(file):
        raise Refused(400, f"Failed to create a pipeline version: invalid spec: {'; '.join(problems)}")
    documents = list(yaml.load_all(file, getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    spec: dict[str, Any] = next(each for each in documents if "pipelineInfo" in each)
    platform = next((each for each in documents if "platforms" in each), None)
    return {"pipeline_spec": spec, "platform_spec": platform} if platform else spec


def check_arguments(spec: dict[str, Any], given: dict[str, Any]) -> None:
    """Refuse arguments that do not fit the parameters of a package."""
    wanted = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    for name, definition in wanted.items():
        if name not in given and "defaultValue" not in definition and not definition.get("isOptional"):
            raise Refused(400, f"Invalid input error: missing required parameter {name}")
    if unknown := sorted(set(given) - set(wanted)):
        raise Refused(400, f"Invalid input error: parameters not in the pipeline's input definitions: {unknown}")
    for name, value in given.items():
        kind = wanted[name].get("parameterType", "STRING")
        if not isinstance(value, KINDS[kind]) or (isinstance(value, bool) and kind != "BOOLEAN"):
            raise Refused(400, f"Invalid input error: input parameter {name} requires type {kind}")


def uploaded_file(kind: str, body: bytes) -> tuple[bytes, str]:
    """The file in the body of an upload, and its name."""
    message = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body, policy=HTTP)
    for part in message.iter_parts():
        if part.get_param("name", header="content-disposition") == "uploadfile":
            return part.get_payload(decode=True), part.get_filename() or ""
    raise Refused(400, "Failed to read pipeline from file")


@functools.cache
def _problems(file: bytes) -> list[str]:
    """The rules that a package breaks."""
    from pipelines.kubeflow.conformance import package_problems

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flow.yaml"
        path.write_bytes(file)
        return list(package_problems(path))
