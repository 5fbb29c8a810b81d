"""The documentation against the sources: links, pictures, the table of parameters, the enclave policy, the workflow."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import make_docs
import pytest
import yaml
from make_docs import Kind

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("decaf_ros/**/*.md")])
# Elements of the policy that allow what the node does.
POLICY_RULES = {
    Kind.SUBSCRIBED: ("topics[@subscribe='ALLOW']", "topic"),
    Kind.PUBLISHED: ("topics[@publish='ALLOW']", "topic"),
    Kind.SERVICE: ("services[@reply='ALLOW']", "service"),
    Kind.ACTION: ("actions[@execute='ALLOW']", "action"),
}
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Names of a page's headings, as a link's fragment has them."""
    headings = re.findall(r"^#+ (.+)$", _CODE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(_CODE.sub("", page.read_text())):
        if "://" in link:
            continue
        path, _, fragment = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not fragment or fragment in anchors(target), f"{page.name} links to {link}, but there is no such heading"


def test_every_page_is_linked_by_itself_or_with_its_folder() -> None:
    linked = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in PAGES
        for link in _LINK.findall(page.read_text())
        if "://" not in link
    }
    assert not [page for page in ROOT.glob("docs/**/*") if page.is_file() and not linked & {page, page.parent}]


def test_table_of_parameters_is_up_to_date() -> None:
    assert (ROOT / "docs" / "parameters.md").read_text() == make_docs.parameters_page(), "run: make docs"


@pytest.mark.parametrize("kind", Kind)
def test_policy_allows_the_node_what_it_does_and_nothing_else(kind: Kind) -> None:
    rules, element = POLICY_RULES[kind]
    policy = ElementTree.parse(ROOT / "config" / "sros2_policy.xml")
    allowed = [each.text or "" for each in policy.findall(f".//profile[@node='decaf_node']/{rules}/{element}")]
    offered = [each.name for each in make_docs.INTERFACES if each.kind is kind]  # a running node is compared with these
    assert sorted(map(make_docs.full_name, allowed)) == sorted(
        map(make_docs.full_name, [*offered, *make_docs.OF_ROS.get(kind, ())])
    )


def test_workflow_runs_the_checks_on_every_python_that_is_supported() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    checks = workflow["jobs"]["checks"]
    assert checks["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert any(".ci/run" in step.get("run", "") for step in checks["steps"])


def test_tests_that_the_documentation_names_are_there() -> None:
    files = {path.name: path.read_text() for path in (ROOT / "test").rglob("test_*.py")}
    for name, *inside in re.findall(r"`(test_\w+\.py)(?:::(\w+))?(?:::(\w+))?`", (ROOT / "docs" / "security.md").read_text()):
        for each in filter(None, inside):
            assert re.search(rf"^\s*(class|(async )?def) {each}\b", files[name], re.MULTILINE), f"{name} has no {each}"
        assert name in files
