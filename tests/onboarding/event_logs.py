"""Small event logs of many kinds, as shops, players and advertisers write them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path

START_S = 1_700_000_000
EVENTS = 1_200


def event_log(folder: Path, columns: dict[str, Callable[[int], object]]) -> Path:
    """A CSV file of events with these columns, each a function of the row, and one of items."""
    rows = [{name: value(n) for name, value in columns.items()} for n in range(EVENTS)]
    _write(folder / "events.csv", rows)
    _write(folder / "items.csv", [{"item_id": f"i{n}", "title": f"the long title of {n}"} for n in range(60)])
    return folder


def json_log(folder: Path, columns: dict[str, Callable[[int], object]]) -> Path:
    """The same as JSON lines, in which yes and no are typed."""
    folder.mkdir(parents=True)
    rows = [{name: value(n) for name, value in columns.items()} for n in range(EVENTS)]
    (folder / "events.jsonl").write_text("\n".join(map(json.dumps, rows)))
    _write(folder / "items.csv", [{"item_id": f"i{n}", "title": f"the long title of {n}"} for n in range(60)])
    return folder


def common(**more: Callable[[int], object]) -> dict[str, Callable[[int], object]]:
    """The columns of every log: who, what and when; and some more."""
    return {
        "user_id": lambda n: f"u{n * 7 % 251}",
        "item_id": lambda n: f"i{n * 11 % 60}",
        "at": lambda n: START_S + n * 61,
        **more,
    }


def cycle(*values: object) -> Callable[[int], object]:
    """A column with these values by turns: the more often a value is given, the more rows have it."""
    return lambda n: values[n % len(values)]


def chinese_shop(folder: Path) -> Path:
    """A log of a Chinese shop, with columns and behaviours in Chinese."""
    folder.mkdir(parents=True)
    kinds = ("曝光", "曝光", "曝光", "点击", "加购", "购买", "退款", "登录")
    log = [
        {
            "用户ID": f"u{n * 7 % 251}",
            "商品ID": f"i{n * 11 % 60}",
            "时间": START_S + n * 61,
            "行为类型": kinds[n % len(kinds)],
            "位置": n % 5 + 1,
        }
        for n in range(EVENTS)
    ]
    _write(folder / "行为日志.csv", log)
    _write(
        folder / "商品.csv",
        [{"商品ID": f"i{n}", "商品名称": f"非常好的商品 {n} 号", "类目": f"第{n % 6}类"} for n in range(60)],
    )
    return folder


def _write(path: Path, rows: Iterable[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    listed = list(rows)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(listed[0]))
        writer.writeheader()
        writer.writerows(listed)
