"""CPU and memory are read as Kubernetes reads them, and what asks for too much is refused."""

from __future__ import annotations

import re

import pytest
from kubernetes.utils import parse_quantity as parse_as_kubernetes

from pipelines.placement import Resources
from pipelines.quantities import parse_quantity, portable_cpu, portable_memory
from pipelines.recipes import change_of, named
from rankline.errors import UsageError

PORTABLE = re.compile(r"^[0-9]+(E|Ei|P|Pi|T|Ti|G|Gi|M|Mi|K|Ki){0,1}$")  # of kfp 2.17.0
QUANTITIES = (
    "2", "0.5", ".5", "250m", "8Gi", "512Mi", "2G", "1.5Gi", "1000", "3Ki", "4k", "1e9", "1E3", "2E", "7Pi", "12T",
    "128974848000m", "1k", "2.", "500u",
)  # fmt: skip


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_a_quantity_is_read_as_kubernetes_reads_it(quantity: str) -> None:
    assert parse_quantity(quantity) == parse_as_kubernetes(quantity)


@pytest.mark.parametrize("quantity", [each for each in QUANTITIES if each not in ("250m", "0.5", ".5", "500u")])
def test_a_package_has_a_notation_that_kubeflow_and_kubernetes_share(quantity: str) -> None:
    assert PORTABLE.match(portable_memory(quantity))
    assert not portable_memory(quantity).endswith("K")
    assert parse_as_kubernetes(portable_memory(quantity)) == parse_as_kubernetes(quantity)


@pytest.mark.parametrize(
    ("cpu", "expected"), [("2", "2"), (".5", ".5"), ("1k", "1000000m"), ("1500u", "2m"), ("2.", "2000m")]
)
def test_a_number_of_cpus_is_one_that_kubeflow_reads(cpu: str, expected: str) -> None:
    assert portable_cpu(cpu) == expected


@pytest.mark.parametrize("quantity", ["", "many", "8GiB", "-1", "1 Gi", "1mi", "2\n3"])
def test_what_is_no_quantity_is_refused(quantity: str) -> None:
    with pytest.raises(ValueError, match="no quantity"):
        parse_quantity(quantity)


def test_numbers_are_quantities() -> None:
    size = Resources.model_validate({"cpu": 8, "cpu_request": 0.5, "memory": 2**30, "memory_request": "512Mi"})
    assert (size.cpu, size.cpu_request, size.memory) == ("8", "0.5", "1073741824")
    settings = ["cluster.train.cpu=8", "cluster.train.memory=4294967296", "cluster.train.cpu_request=2"]
    train = named("smoke", settings).cluster.train
    assert (train.cpu, train.memory, train.requests) == ("8", "4294967296", {"cpu": "2", "memory": "4294967296"})


def test_a_request_is_a_part_of_the_limit_unless_it_is_given() -> None:
    assert Resources(cpu="2", memory="8Gi").requests == {"cpu": "500m", "memory": "8Gi"}
    assert Resources(cpu="1m", memory="400Mi").requests == {"cpu": "1m", "memory": "400Mi"}
    given = Resources(cpu="2", cpu_request="2", memory="1.5Gi", memory_request="1G")
    assert given.requests == {"cpu": "2", "memory": "1G"}
    assert portable_memory(given.memory) == str(3 * 2**29)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("cluster.train.cpu=many", "a number of CPUs such as 2, 0.5 or 500m, more than 0"),
        ("cluster.train.cpu=0", "a number of CPUs such as 2, 0.5 or 500m, more than 0"),
        ("cluster.train.cpu=true", "a number of CPUs"),
        ("cluster.data.memory=8GB", "an amount of memory such as 8Gi, 512Mi or a number of bytes, more than 0"),
        ("cluster.data.memory=", "match"),
        ("cluster.data.memory_request=9Gi", "at most memory, 3Gi"),
        ("cluster.small.cpu_request=1500m", "at most cpu, 1"),
    ],
)
def test_a_size_that_no_cluster_has_is_refused_with_what_is_expected(setting: str, expected: str) -> None:
    with pytest.raises(UsageError) as refusal:
        named("smoke", [setting])
    assert setting.partition("=")[0] in refusal.value.message
    assert expected in refusal.value.expected


def test_smoke_fits_a_node_of_two_processors() -> None:
    cluster = named("smoke").cluster
    for size in (cluster.small, cluster.data, cluster.train, cluster.serve):
        assert parse_as_kubernetes(size.requests["cpu"]) <= 0.5  # beside what every node runs itself
        assert parse_as_kubernetes(size.requests["memory"]) <= 3 * 2**30


def test_a_copy_is_checked_as_new_settings_are() -> None:
    with pytest.raises(ValueError, match="at most cpu, 2"):
        change_of(Resources(), cpu_request="3")
