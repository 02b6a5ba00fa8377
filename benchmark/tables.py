"""Tables that are measured once and committed: their records as JSON, their text as Markdown.

``benchmark/tables/<name>.json`` holds what was measured, with the command and the machine, and
``<name>.md`` beside it is made from that alone.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from overconv.training.environment import facts

FOLDER = Path(__file__).parent / "tables"


def record(command: str, rows: Sequence[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """What is stored of a measurement: its rows, the command that gives them, and the machine."""
    environment = {"torch": torch.__version__, "threads": torch.get_num_threads(), **machine()}
    return {"command": command, **more, "environment": environment, "rows": list(rows)}


def with_other_machines(found: dict[str, Any], committed: dict[str, Any] | None) -> dict[str, Any]:
    """``found``, and under ``"others"`` what is committed of other kinds of processor.

    A ratio of times depends on the processor, so what one measures does not replace what another
    did; a newer record of the same kind does.
    """
    kept = [] if committed is None else [committed, *committed.get("others", [])]
    here = found["environment"]["processor"]
    others = [{k: v for k, v in record.items() if k != "others"} for record in kept]
    return {**found, "others": [o for o in others if o["environment"]["processor"] != here]}


def machine() -> dict[str, Any]:
    """Facts of this one, but for its name: what is stored may be published."""
    return {name: value for name, value in facts().items() if name != "host"}


def save(name: str, found: dict[str, Any], text: str, folder: Path = FOLDER) -> Path:
    """Write the record and its table; returns the path of the table."""
    folder.mkdir(parents=True, exist_ok=True)
    written = json.dumps(found, indent=1, sort_keys=True, allow_nan=False)
    (folder / f"{name}.json").write_text(written + "\n", encoding="utf-8")
    path = folder / f"{name}.md"
    path.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    return path


def load(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """The committed record of a table."""
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def markdown(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown, padded so that its source can be read too."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in [columns, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines) + "\n"
