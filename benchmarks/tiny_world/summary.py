"""The sections' rows as Markdown tables."""

LISTED = 8  # of a list; all of it is in the section's JSON


def markdown(records: dict[str, dict]) -> str:
    lines = ["# The tiny world, measured", "", "Numbers in brackets are 95 % bootstrap intervals.", ""]
    for section, record in records.items():
        lines += [f"## {section}", ""]
        tables: dict[str, list[dict]] = {}
        for row in record["rows"]:
            tables.setdefault(row["table"], []).append(row)
        for name, rows in tables.items():
            columns = list(dict.fromkeys(column for row in rows for column in row if column != "table"))
            lines += [f"**{name}**", "", _line(columns), _line(["---"] * len(columns))]
            lines += [_line([_cell(row.get(column)) for column in columns]) for row in rows]
            lines.append("")
        lines += [line for note in record["notes"] for line in (note, "")]
        settings = ", ".join(f"{name} {_cell(value)}" for name, value in record["settings"].items())
        lines += [f"Settings: {settings}; {record['seconds']:.0f} s on {record['device']}.", ""]
    return "\n".join(lines)


def _line(cells) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value) -> str:
    if isinstance(value, dict) and "estimate" in value:
        return f"{_cell(value['estimate'])} [{_cell(value['low'])}, {_cell(value['high'])}]"
    if isinstance(value, dict):
        return " ".join(f"{name}={_cell(one)}" for name, one in value.items())
    if isinstance(value, list):
        more = f"; and {len(value) - LISTED} more" if len(value) > LISTED else ""
        return ("; ".join(map(_cell, value[:LISTED])) or "none") + more
    if isinstance(value, float):
        return f"{value:.3f}"
    return "-" if value is None else str(value).replace("|", "\\|")
