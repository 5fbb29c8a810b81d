"""What a client and the page listen to and call is what their enclaves allow: one thing more, and they cannot start."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from rclpy.action import get_action_client_names_and_types_by_node

from decaf_ros.ros.client import DecafClient
from decaf_ros.web.server import IMAGE_TOPICS

POLICY = ElementTree.parse(Path(__file__).parents[2] / "config" / "sros2_policy.xml")
SHOWN_BY_PAGE = {"/diagnostics", "/decaf_node/objects", *(f"/decaf_node/{name}" for name in IMAGE_TOPICS)}


def allowed(node: str, rules: str, element: str) -> set[str]:
    """Names that the policy has for a node."""
    return {each.text or "" for each in POLICY.findall(f".//profile[@node='{node}']/{rules}/{element}")}


@pytest.mark.parametrize("name", ["decaf_client", "decaf_web"])
def test_client_asks_for_nothing_that_its_enclave_forbids(ros: None, name: str) -> None:
    with DecafClient(name=name) as client:
        services = {service for service, _ in client.node.get_client_names_and_types_by_node(name, "/")}
        topics = {topic for topic, _ in client.node.get_subscriber_names_and_types_by_node(name, "/")}
        actions = {action for action, _ in get_action_client_names_and_types_by_node(client.node, name, "/")}
    services = {service for service in services if "/_action/" not in service}
    topics = {topic for topic in topics if "/_action/" not in topic}
    assert "/decaf_node/query" in services, "the node sees itself"
    assert services <= allowed(name, "services[@request='ALLOW']", "service")
    assert topics <= allowed(name, "topics[@subscribe='ALLOW']", "topic")
    assert actions <= allowed(name, "actions[@call='ALLOW']", "action")


def test_page_may_show_what_it_shows() -> None:
    assert allowed("decaf_web", "topics[@subscribe='ALLOW']", "topic") >= SHOWN_BY_PAGE


@pytest.mark.parametrize("name", ["decaf_client", "decaf_web"])
def test_who_asks_may_change_neither_parameters_nor_states(name: str) -> None:
    requested = allowed(name, "services[@request='ALLOW']", "service")
    assert requested
    assert not [
        service for service in requested if service.endswith(("set_parameters", "set_parameters_atomically", "change_state"))
    ]
