"""What is done around a build: what is sent, said, looked into, refused and written down."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.images import build, contents, docker, sbom, torch_build
from pipelines.images.build import BuildOptions, BuiltImage
from pipelines.images.contents import Inventory
from pipelines.images.docker import DockerCommand
from pipelines.runs.containers import CODE_LABEL, code_digest
from rankline.errors import IntegrityError, RanklineError, UsageError
from tests.pipelines.images.bills import package_names
from tests.servers.process import Server, free_port, listens

ROOT = Path(__file__).resolve().parents[3]
HELD = Inventory(
    "3.11.9",
    [["rankline", "0.1.0", "Apache-2.0"], ["Typing_Extensions", "4.16.0", ""], ["onnxruntime-gpu", "1.31.1", "MIT"]],
    [["libc6", "2.36-9", "amd64"]],
    "debian",
    "12",
)


def holding(*names: str, version: str = "1.0") -> Inventory:
    return replace(HELD, python=[*HELD.python, *([name, version, ""] for name in names)])


@pytest.mark.parametrize(
    ("kind", "variant", "held", "fault"),
    [
        ("serve", "cpu", holding("torch"), "it holds torch"),
        ("serve", "cpu", holding("Transformers"), "it holds transformers"),
        ("serve", "cpu", holding("kfp"), "it holds kfp"),
        ("data", "cpu", holding("torch"), "it holds torch"),
        ("data", "cuda", holding("nvidia-cudnn-cu13"), "it holds CUDA libraries"),
        ("train", "cpu", holding("torch", "nvidia_cublas", "triton"), "it holds CUDA libraries"),
        ("evaluate", "cpu", holding("torch"), "it holds torch"),
        ("serve", "cuda", HELD, "it lacks nvidia-cudnn-cu13"),
        ("train", "cuda", holding("torch", "nvidia-cudnn-cu13", version="2.13.0+cpu"), "is a CPU build"),
    ],
)
def test_an_image_that_is_not_what_it_should_be_is_seen(
    kind: str, variant: contents.Variant, held: Inventory, fault: str
) -> None:
    assert fault in "; ".join(contents.content_violations(kind, variant, held))


@pytest.mark.parametrize(
    ("kind", "variant", "held"),
    [
        ("serve", "cpu", HELD),
        ("data", "cpu", holding("kfp")),
        ("evaluate", "cpu", holding("kfp")),
        ("train", "cpu", holding("torch", "transformers", "kfp", version="2.13.0+cpu")),
        ("train", "cuda", holding("torch", "nvidia-cudnn-cu13", "triton", version="2.13.0")),
        ("serve", "cuda", holding("nvidia-cudnn-cu13")),
    ],
)
def test_one_that_is_what_it_should_be_passes(kind: str, variant: contents.Variant, held: Inventory) -> None:
    assert contents.content_violations(kind, variant, held) == []


PIN = "python:3.11-slim@sha256:" + "a" * 64


@pytest.mark.parametrize("base", ["python:3.11-slim", "python@sha256:abc", "python@md5:" + "a" * 64])
def test_a_release_refuses_a_base_that_is_not_pinned(base: str) -> None:
    assert build.require_base(base, release=False) == base
    with pytest.raises(UsageError, match="a release stands on a pinned base image"):
        build.require_base(base, release=True)


def test_no_base_is_no_choice() -> None:
    with pytest.raises(UsageError, match="the base image is not named"):
        build.require_base("", release=False)
    assert build.require_base(PIN, release=True) == PIN


# which build of torch pip's index has, asked before a build


def only_find_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip without an index, without settings of this machine and without a cache."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    for name, value in {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_NO_CACHE_DIR": "1"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Serves a wheel of the locked torch that requires these libraries; returns the URL of its folder."""
    folder, port = tmp_path / "wheels", free_port()
    folder.mkdir()
    only_find_links(monkeypatch)

    def carry(*libraries: str) -> str:
        version = torch_build.locked_torch(ROOT).partition("==")[2]
        metadata = ["Metadata-Version: 2.1", "Name: torch", f"Version: {version}"]
        metadata += [f"Requires-Dist: {each}" for each in libraries]
        info = f"torch-{version}.dist-info"
        with zipfile.ZipFile(folder / f"torch-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{info}/METADATA", "\n".join(metadata) + "\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
        return f"http://127.0.0.1:{port}/"

    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(folder)]
    with Server(command, log=tmp_path / "index.log", ready=lambda: listens(port)).running():
        yield carry


@pytest.mark.parametrize(
    ("required", "cuda"),
    [
        (("filelock", "numpy; extra == 'opt'"), []),
        (("nvidia-cublas==1; platform_system == 'Linux'", "triton==3", "filelock"), ["nvidia-cublas", "triton"]),
        (("nvidia-cublas==1; platform_system == 'Windows'", "cuda-bindings; extra == 'gpu'"), []),
    ],
)
def test_pip_is_asked_what_its_torch_requires(
    index: Callable[..., str], required: tuple[str, ...], cuda: list[str]
) -> None:
    report = torch_build.pip_report([sys.executable], torch_build.locked_torch(ROOT), index(*required))
    assert report is not None
    assert torch_build.cuda_requirements(report) == cuda


def test_an_index_without_torch_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only_find_links(monkeypatch)
    assert torch_build.pip_report([sys.executable], "torch==0.0.1", str(tmp_path)) is None


def pip_in_place_of_docker(tmp_path: Path) -> DockerCommand:
    """A docker command whose `run` runs this machine's Python instead of the image's."""
    script = tmp_path / "docker"
    script.write_text(f'#!/bin/sh\nwhile [ "$1" != base ]; do shift; done; shift 3; exec {sys.executable} "$@"\n')
    script.chmod(0o755)
    return DockerCommand(str(script), buildkit=True)


@pytest.mark.integration
def test_a_train_image_with_the_wrong_torch_is_refused_before_it_is_built(
    index: Callable[..., str], tmp_path: Path
) -> None:
    tool, lines = pip_in_place_of_docker(tmp_path), list[str]()
    options = BuildOptions(base="base", network="host", torch_wheels=index("filelock"))
    torch_build.require_cpu_torch(options, tool=tool, say=lines.append, source_root=ROOT)
    assert lines == ["  train [cpu] which build of torch does pip's index have?"]
    options = replace(options, torch_wheels=index("nvidia-cudnn-cu13"))
    with pytest.raises(RanklineError, match="would hold CUDA libraries") as refusal:
        torch_build.require_cpu_torch(options, tool=tool, say=lines.append, source_root=ROOT)
    assert "--variant cuda" in refusal.value.hint
    assert "nvidia-cudnn-cu13" in refusal.value.found


def test_every_digest_that_was_pushed_is_printed() -> None:
    from cli.project.build import _pinned_settings

    images = [replace(built(), kind=kind, pushed=f"r/{kind}@sha256:1") for kind in build.KINDS]
    lines = "\n".join(_pinned_settings(images))
    assert [kind for kind in build.KINDS if f"r/{kind}@sha256:1" in lines] == list(build.KINDS)
    assert _pinned_settings(images[2:3]) == ["for the server's Deployment:", "  image: r/serve@sha256:1"]
    assert "needs a digest" in _pinned_settings([built()])[0]


# with an engine and a registry, on an image of nothing at all


@pytest.fixture
def tool() -> DockerCommand:
    try:
        return docker.find_docker()
    except RanklineError as error:
        pytest.skip(f"{error.message}: {error.found}")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """A registry that listens on this machine alone."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("no registry here: Debian's package docker-registry brings one")
    address = f"127.0.0.1:{free_port()}"
    settings = tmp_path / "registry.yml"
    settings.write_text(
        f"{{version: 0.1, log: {{accesslog: {{disabled: true}}}}, http: {{addr: '{address}'}}, "
        f"storage: {{filesystem: {{rootdirectory: {tmp_path / 'registry'}}}}}}}"
    )

    def ready() -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{address}/v2/", timeout=1):
            return True
        return False

    with Server([program, "serve", str(settings)], log=tmp_path / "registry.log", ready=ready).running():
        yield address


@pytest.fixture
def created(tool: DockerCommand, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Makes an image of nothing under a name; it is gone afterwards."""
    ids: list[str] = []
    with tarfile.open(tmp_path / "nothing.tar", "w"):
        pass

    def make(name: str) -> None:
        ids.append(docker.docker_output(tool, "import", "--message", name, str(tmp_path / "nothing.tar"), name).strip())

    yield make
    for each in ids:
        subprocess.run([tool.command, "image", "rm", "--force", each], capture_output=True)


def test_a_tag_is_built_on_as_the_digest_that_it_stands_for(
    tool: DockerCommand, registry: str, created: Callable[[str], None]
) -> None:
    base = f"{registry}/base:1"
    created(base)
    local = json.loads(docker.docker_output(tool, "image", "inspect", base))[0]["Id"]
    assert build.resolve_base(base, tool=tool) == (base, local)  # no registry has seen it
    docker.docker_output(tool, "push", base)
    pinned, base_id = build.resolve_base(base, tool=tool)
    assert pinned.startswith(f"{base}@sha256:")
    assert build.require_base(pinned, release=True) == pinned
    docker.docker_output(tool, "image", "rm", base)  # and what is not here is pulled
    assert build.resolve_base(pinned, tool=tool) == (pinned, base_id)
    result = build.labels_of("serve", BuildOptions(base=pinned, base_id=base_id))
    assert result["org.opencontainers.image.base.name"] == base
    assert f"{base}@{result['org.opencontainers.image.base.digest']}" == pinned
    assert result[build.BASE_LABEL] == base_id == local


def test_a_base_that_is_nowhere_is_named(tool: DockerCommand, registry: str) -> None:
    with pytest.raises(RanklineError, match="not on this machine and cannot be pulled") as refusal:
        build.resolve_base(f"{registry}/never:1", tool=tool)
    assert "the spelling of --base" in str(refusal.value)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files of a build in a repository of their own, committed at a known moment."""
    source_root = tmp_path / "house"
    with build.build_context(ROOT, buildkit=True) as folder:
        shutil.copytree(folder, source_root)
    git = ["git", "-C", str(source_root), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all", "--date=@1000", "--no-gpg-sign"]):
        subprocess.run([*git, *words], check=True, env={"GIT_COMMITTER_DATE": "@1000 +0000", "PATH": "/usr/bin:/bin"})
    return source_root


def test_a_release_refuses_files_that_are_not_committed(checkout: Path) -> None:
    assert build.require_source(release=True, source_root=checkout) == checkout
    (checkout / "rankline" / "new.py").write_text("")
    assert build.require_source(release=False, source_root=checkout) == checkout
    with pytest.raises(UsageError, match=r"new\.py"):
        build.require_source(release=True, source_root=checkout)


def test_a_release_refuses_a_folder_without_history(checkout: Path) -> None:
    shutil.rmtree(checkout / ".git")
    with pytest.raises(UsageError, match="no repository"):
        build.require_source(release=True, source_root=checkout)


def test_an_installation_without_a_dockerfile_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="images are built from a checkout"):
        build.require_source(release=False, source_root=tmp_path)


def test_labels_say_where_an_image_comes_from(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    oci = "org.opencontainers.image"
    head = subprocess.check_output(["git", "-C", str(checkout), "rev-parse", "HEAD"], text=True).strip()
    result = build.labels_of("serve", BuildOptions(base=PIN), checkout)
    assert result[f"{oci}.revision"] == head
    assert result[f"{oci}.created"] == "1970-01-01T00:16:40Z"
    assert result[f"{oci}.base.digest"] == "sha256:" + "a" * 64
    assert result[CODE_LABEL] == code_digest(checkout) == code_digest(ROOT)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "2000")
    (checkout / "serving" / "app.py").write_text("")
    result = build.labels_of("serve", BuildOptions(base="python:3.11-slim"), checkout)
    assert result[f"{oci}.revision"] == f"{head}-changed"
    assert result[f"{oci}.created"] == "1970-01-01T00:33:20Z"
    assert f"{oci}.base.digest" not in result
    assert result[CODE_LABEL] != code_digest(ROOT)


def test_a_build_is_sent_the_code_and_nothing_else() -> None:
    with build.build_context(ROOT, buildkit=True) as folder:
        assert {path.name for path in folder.iterdir()} == {
            *(name.split("/")[0] for name in build.CONTEXT_FILES), *build.PACKAGES
        }  # fmt: skip
        assert not list(folder.rglob("__pycache__"))
        assert code_digest(folder) == code_digest(ROOT)
        assert "--mount=type=cache" in (folder / "deploy" / "Dockerfile").read_text()
    with build.build_context(ROOT, buildkit=False) as folder:
        text = (folder / "deploy" / "Dockerfile").read_text()
        assert "--mount" not in text
        assert text.count("RUN PIP_NO_CACHE_DIR=1 PIP_CACHE_DIR=/root/.cache/pip pip --python") == 5


def test_tags_tell_the_variant() -> None:
    order = BuildOptions(base=PIN, name="registry.example/team/rankline", tag="1.2")
    assert order.reference("serve") == "registry.example/team/rankline/serve:1.2"
    assert replace(order, variant="cuda").reference("serve") == "registry.example/team/rankline/serve:1.2-cuda"


# a command in place of docker that prints what docker prints

BUILDKIT = """#5 [base 2/3] RUN venv
#5 sha256:1234
#5 CACHED
#8 [data 3/4] RUN --mount=type=cache,target=/root/.cache/pip,sharing=locked     pip install
#8 sha256:5678
#8 0.311 Collecting duckdb
#8 9.1 done
"""


def running(tmp_path: Path, prints: str, code: int) -> list[str]:
    lines: list[str] = []
    script = f"cat <<'EOF'\n{prints}\nEOF\nexit {code}"
    docker.run_docker(["sh", "-c", script], tmp_path / "log" / "x.log", "data", say=lines.append, buildkit=True)
    return lines


def test_steps_that_are_done_again_are_reported_and_cached_ones_are_not(tmp_path: Path) -> None:
    assert running(tmp_path, BUILDKIT, 0) == ["  data [data 3/4] RUN pip install"]
    assert (tmp_path / "log" / "x.log").read_text().startswith("#5 [base")


def test_steps_of_an_engine_without_buildkit_are_reported(tmp_path: Path) -> None:
    assert running(tmp_path, "Step 7/40 : RUN pip install\n ---> Running", 0) == ["  data [7/40] RUN pip install"]


@pytest.mark.parametrize(
    ("last", "hint"),
    [
        ("ERROR: Could not install: [Errno 28] No space left on device", "docker builder prune"),
        ("ERROR: No matching distribution found for torch==2.13.0", "PIP_INDEX_URL"),
        ("something else", "read the log"),
    ],
)
def test_a_build_that_fails_shows_its_last_lines_and_its_log(tmp_path: Path, last: str, hint: str) -> None:
    with pytest.raises(RanklineError) as refusal:
        running(tmp_path, BUILDKIT + last, 1)
    message = str(refusal.value)
    assert message.startswith("data: docker refused")
    assert f"    {last}" in message
    assert f"where: {tmp_path}/log/x.log" in message
    assert hint in message.splitlines()[-1]


# the bill of materials


def built(held: Inventory = HELD) -> BuiltImage:
    labels = {"org.opencontainers.image.created": "1970-01-01T00:16:40Z"}
    return BuiltImage("serve", "rankline/serve:0.1.0", "sha256:" + "b" * 64, 1, 1.0, held, labels)


def test_a_bill_names_every_package_once_and_is_the_same_each_time(tmp_path: Path) -> None:
    path = sbom.write_sbom(built(), tmp_path)
    result = json.loads(path.read_text())
    urls = {each["purl"] for each in result["components"]}
    assert urls == {
        "pkg:generic/python@3.11.9",
        "pkg:pypi/rankline@0.1.0",
        "pkg:pypi/typing-extensions@4.16.0",
        "pkg:pypi/onnxruntime-gpu@1.31.1",
        "pkg:deb/debian/libc6@2.36-9?arch=amd64&distro=debian-12",
    }
    assert result["metadata"]["component"]["version"] == "sha256:" + "b" * 64
    assert result["metadata"]["timestamp"].startswith("1970-01-01T00:16:40")
    assert package_names(path) == {"rankline", "typing_extensions", "onnxruntime-gpu"}
    assert sbom.write_sbom(built(), tmp_path / "again").read_text() == path.read_text()


def test_a_bill_that_breaks_its_schema_is_not_written(tmp_path: Path) -> None:
    broken = built()
    broken.labels["org.opencontainers.image.created"] = "1970-01-01T00:16:40Z"
    broken.inventory = replace(HELD, python=[["", "", ""]])
    with pytest.raises((IntegrityError, ValueError)):
        sbom.write_sbom(broken, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_docker_command_that_fails_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RanklineError, match="`docker image` failed"):
        docker.docker_output(DockerCommand("/bin/false", buildkit=False), "image", "inspect", "x")
