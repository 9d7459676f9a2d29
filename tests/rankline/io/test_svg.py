"""Charts: names of the data are text, and the picture has a name."""

from __future__ import annotations

import pytest
from lxml import html

from rankline.io.svg import figure, style, svg


@pytest.mark.parametrize("name", ["$x^{$", "a & <b>", "plain", '"quoted"'])
def test_a_name_of_the_data_is_text_and_the_label_is_escaped(name: str) -> None:
    with style(named_rows=True):
        fig, axes = figure(1.0)
        axes.plot([0, 1], [0, 1])
        axes.set_yticks([0, 1], [name, "other"])
        picture = html.fragment_fromstring(svg(fig, f"by {name}"))
    assert name in [text.text_content().strip() for text in picture.iter("text")]
    assert picture.get("aria-label") == picture.xpath("./title")[0].text == f"by {name}"
    assert picture.get("role") == "img"
