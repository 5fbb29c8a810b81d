"""What a running node offers, against docs/topics.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import make_docs
import pytest
from harness import NodeProcess
from make_docs import Found, Kind

from decaf_ros.ros.client import DecafClient

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found(client: DecafClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    process = NodeProcess("node", tmp_path_factory.mktemp("node") / "decaf_node.log", make_docs.NODE_PARAMETERS)
    try:
        client.wait_until_ready()
        yield make_docs.wait_for_interfaces(client.node)
    finally:
        process.stop()


def test_table_of_topics_is_up_to_date(found: Found) -> None:
    assert (ROOT / "docs" / "topics.md").read_text() == make_docs.topics_page(found), "run: make docs"


def test_interface_without_a_description_is_an_error(found: Found) -> None:
    unknown = (Kind.SERVICE, "/decaf_node/new")
    assert "/decaf_node/new (service) is not described" in make_docs.difference({**found, unknown: make_docs.Announced("")})
    some = next(iter(found))
    assert "is not there" in make_docs.difference({key: value for key, value in found.items() if key != some})
