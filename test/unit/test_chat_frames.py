"""Chat templates: frames are what transformers renders, and no template runs for ever or fills the memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

import decaf_ros.models.embedded
from decaf_ros.models.chat_frames import chat_frames

PLAIN = (Path(decaf_ros.models.embedded.__path__[0]) / "qwen2_5_vl" / "chat_template.jinja").read_text()
# In the manner of published templates: a system turn, counters in namespaces, macros, filters, tokens by name.
ELABORATE = """
{%- macro shown(part) -%}
  {%- if part.type in ('image', 'video') -%}<|vision_start|><|{{ part.type }}_pad|><|vision_end|>{%- endif -%}
{%- endmacro -%}
{%- set seen = namespace(images=0) -%}
{%- for message in messages -%}
  {%- if loop.first and message.role != 'system' %}{{ bos_token }}You are a helpful assistant.{{ eos_token }}
{% endif -%}
  {{ message['role'] | upper }}: {% for part in message.content | rejectattr('type', 'equalto', 'text') -%}
    {%- set seen.images = seen.images + 1 -%}Picture {{ seen.images }}: {{ shown(part) }}
  {%- endfor -%}
  {%- for part in message.content | selectattr('type', 'equalto', 'text') -%}{{ part.text | trim }}{%- endfor -%}{{ eos_token }}
{%- endfor -%}
{%- if add_generation_prompt %}
ASSISTANT:{% endif -%}
"""
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


@pytest.mark.parametrize("template", [PLAIN, ELABORATE])
@pytest.mark.parametrize("medium", ["video", "image", None])
def test_a_sentence_in_its_frame_is_what_transformers_renders(template, medium):
    sentence = "the {{ second }} mug, {% raw %} on \\ the 'left' Which object? 杯子"
    content = ([{"type": medium}] if medium else []) + [{"type": "text", "text": sentence}]
    conversation = [{"role": "user", "content": content}]
    [expected], _ = render_jinja_template([conversation], chat_template=template, add_generation_prompt=True, **TOKENS)
    head, tail = chat_frames(template, TOKENS)[medium]
    assert head + sentence + tail == expected


@pytest.mark.parametrize(
    ("before", "cause"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "more than 3 s of computing"),
        ("{% set x = 'x' * 10**10 %}", "more than 256 MB of memory"),  # when it is compiled
        ("{% set x = messages[0].role * (10**10 // messages | length) %}", "more than 256 MB of memory"),  # when rendered
        ("{{ '%09999999999d' | format(1) }}", "more than 256 MB of memory"),
        (
            "{% set n = namespace(x='xx') %}{% for _ in range(50) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
            "more than 256 MB of memory",
        ),
        ("{{ 'x' * 99999 }}", "enough for any"),
        ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", "recursion"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{% include '/etc/hostname' %}", "no loader"),
        ("{% if messages[0].content[-1].text | length > 99 %}{{ eos_token }}{% endif %}", "something else with a sentence"),
        ("{{ messages[0].content[-1].text }}", "something else with a sentence"),
        ("{% for %}", "Expected"),
        ("{{ raise_exception('not\x07\nthis') }}", r"not\\x07 this$"),
    ],
)
def test_a_template_beyond_the_limits_is_refused(before, cause):
    with pytest.raises(ValueError, match=cause):
        chat_frames(before + PLAIN, TOKENS)


def test_a_template_that_is_very_long_is_not_even_compiled():
    with pytest.raises(ValueError, match="characters"):
        chat_frames(PLAIN + " " * (1 << 18), TOKENS)
