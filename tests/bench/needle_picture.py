"""The table and the picture of needle.py's results: length across, depth down, colour the share of keys found."""

from xml.sax.saxutils import escape

CELL_WIDTH, CELL_HEIGHT, LEFT, TOP, PANEL_GAP = 64, 24, 64, 80, 62
# Shares 0, 1/2 and 1: they differ in lightness too, and every cell says its number.
COLOURS = ((0.0, (178, 56, 60)), (0.5, (244, 208, 111)), (0.9, (122, 190, 125)), (1.0, (46, 139, 87)))
DARK_TEXT, LIGHT_TEXT = "#1b1b1b", "#ffffff"


def shares(records):
    """{scheme: {(length, depth): (found, asked)}}, schemes in the order of the records."""
    result = {}
    for record in records:
        length, depth, _ = record["cell"]
        found, asked = result.setdefault(record["scheme"], {}).get((length, depth), (0, 0))
        result[record["scheme"]][length, depth] = found + (record["key"] in record["answer"]), asked + 1
    return result


def lengths_of(cells):
    return sorted({length for length, _ in cells})


def depths_of(cells):
    return sorted({depth for _, depth in cells})


def percent(found, asked):
    """Never rounded up to 100, nor down to 0."""
    value = 100 * found / asked
    return round(value) if found in (0, asked) else min(99, max(1, round(value)))


def summary(cells, length):
    """(found, asked) at a length, and the smallest share of a depth."""
    column = [value for (size, _), value in cells.items() if size == length]
    least = min(percent(found, asked) for found, asked in column)
    return sum(found for found, _ in column), sum(asked for _, asked in column), least


def markdown(records, original):
    """A line per scheme and length; depths that no key was missed at are not listed."""
    lines = ["| | length | found | worst depth |", "|---|---|---|---|"]
    for scheme, cells in shares(records).items():
        for length in lengths_of(cells):
            found, asked, least = summary(cells, length)
            lines.append(f"| {scheme} | {length} ({length / original:g}x) | {percent(found, asked)}% "
                         f"({found} of {asked}) | {least}% |")
    return "\n".join(lines)


def colour(share):
    for (low, first), (high, second) in zip(COLOURS, COLOURS[1:]):
        if share <= high:
            part = (share - low) / (high - low)
            return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in zip(first, second))
    raise ValueError(f"share {share} is above 1")


def text(x, y, content, size=12, anchor="middle", fill=DARK_TEXT, weight="normal"):
    return (f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}" fill="{fill}" '
            f'font-weight="{weight}">{escape(str(content))}</text>')


def panel(scheme, cells, top, original):
    """The heat map of one scheme, its title above and its lengths below."""
    lengths, depths = lengths_of(cells), depths_of(cells)
    parts = [text(LEFT, top - 10, scheme, 14, "start", weight="bold")]
    for column, length in enumerate(lengths):
        x = LEFT + column * CELL_WIDTH
        for row, depth in enumerate(depths):
            y = top + row * CELL_HEIGHT
            if (length, depth) not in cells:
                continue
            found, asked = cells[length, depth]
            fill = LIGHT_TEXT if found / asked < 0.2 or found == asked else DARK_TEXT
            parts.append(f'<rect x="{x}" y="{y}" width="{CELL_WIDTH}" height="{CELL_HEIGHT}" '
                         f'fill="{colour(found / asked)}" stroke="#ffffff"/>')
            parts.append(text(x + CELL_WIDTH / 2, y + CELL_HEIGHT / 2 + 4, percent(found, asked), 11, fill=fill))
        bottom = top + len(depths) * CELL_HEIGHT
        parts.append(text(x + CELL_WIDTH / 2, bottom + 15, f"{length:,}"))
        parts.append(text(x + CELL_WIDTH / 2, bottom + 29, f"{length / original:g}x", 10, fill="#666666"))
    for row, depth in enumerate(depths):
        parts.append(text(LEFT - 8, top + row * CELL_HEIGHT + CELL_HEIGHT / 2 + 4, f"{100 * depth:.0f}%", 11, "end"))
    return parts


def key_bar(x, y):
    """The colours' legend."""
    steps, width = 20, 8
    parts = [f'<rect x="{x + step * width}" y="{y}" width="{width}" height="10" fill="{colour(step / (steps - 1))}"/>'
             for step in range(steps)]
    return parts + [text(x - 6, y + 9, "0%", 11, "end"), text(x + steps * width + 6, y + 9, "100% of keys found", 11, "start")]


def svg(records, original):
    found = shares(records)
    if not found:
        raise ValueError("no results to draw")
    columns = max(5, *(len(lengths_of(cells)) for cells in found.values()))  # the legend needs five
    heights = [len(depths_of(cells)) * CELL_HEIGHT for cells in found.values()]
    width, height = LEFT + columns * CELL_WIDTH + 16, TOP + sum(heights) + PANEL_GAP * len(heights) - 20
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
             f'height="{height}" font-family="Helvetica, Arial, sans-serif" role="img">',
             f"<title>Pass keys found by length and depth, training length {original}</title>",
             f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
             text(LEFT, 20, f"Depth of the key (down) by tokens (across); trained on {original}", 12, "start"),
             *key_bar(LEFT + 24, 28)]
    top = TOP
    for (scheme, cells), size in zip(found.items(), heights):
        parts += panel(scheme, cells, top, original)
        top += size + PANEL_GAP
    return "\n".join([*parts, "</svg>", ""])
