"""What agents see of the page and can do with it, by the Model Context Protocol, with a stand-in for the pipeline."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Page, serving
from test_app import ENDPOINTS

pytest.importorskip("mcp", reason="gradio[mcp] is not installed")


@pytest.fixture(scope="module")
def offered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_MCP_SERVER", "True")
        with serving(tmp_path_factory.mktemp("page")) as page:
            yield page


def call(page: Page, tool: str, **arguments: Any) -> list[str]:
    """The texts with which a tool answers."""
    order = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
    headers = {"Accept": "application/json, text/event-stream"}
    answer = httpx.post(f"{page.url}gradio_api/mcp/", json=order, headers=headers, timeout=120).raise_for_status()
    content = json.loads(answer.text.split("data: ", 1)[1])["result"]
    assert not content["isError"], content
    return [part["text"] for part in content["content"]]


def inline(clip: Path) -> str:
    return f"data:video/mp4;base64,{base64.b64encode(clip.read_bytes()).decode()}"


def test_the_tools_are_the_endpoints_and_read_well(offered: Page) -> None:
    tools = {tool["name"]: tool for tool in httpx.get(f"{offered.url}gradio_api/mcp/schema").json()}
    assert {f"/{name}": list(tool["inputSchema"]["properties"]) for name, tool in tools.items()} == ENDPOINTS
    for name, tool in tools.items():
        assert "Returns: " in tool["description"], name
        assert {"clip"} <= set(tool["inputSchema"]["required"]) <= {"clip", "text", "style", "garment", "light"}
        for parameter, facts in tool["inputSchema"]["properties"].items():
            assert facts["type"] in ("string", "number", "integer", "boolean"), (name, parameter)
            assert len(facts["description"]) > 10, (name, parameter)
    assert "Edit a portrait clip by an instruction." in tools["edit_text"]["description"]


def test_an_agent_is_answered_with_the_clip_and_with_nothing_of_the_page(offered: Page) -> None:
    offered.pipeline.reset()
    (answer,) = call(offered, "edit_text", clip=inline(offered.clip), text="give him red hair")
    assert "Done in" in answer
    assert "interactive" not in answer, "buttons are none of its business"
    address = answer.split("'url': '")[1].split("'")[0]
    assert httpx.get(address).content == offered.pipeline.result


def test_agents_see_nothing_of_each_other(offered: Page) -> None:
    """Gradio gives all of them one session."""
    offered.pipeline.reset()
    call(offered, "edit_text", clip=inline(offered.clip), text="give him red hair")
    call(offered, "edit_text", clip=inline(offered.other_clip), text="a bronze statue", again=True)
    call(offered, "render", clip=inline(offered.clip))
    learned, sources = offered.pipeline.folders("reconstruct"), offered.pipeline.folders("edit")
    assert len({folder.parent for folder in learned}) == 3, "each has a folder of its own"
    assert sources == learned[:2]
    assert offered.pipeline.folders("render") == learned[2:]
