"""Draws throughput and latency over the number of clients as SVG. All colors are readable on white and on black."""

import html, itertools, math

COLORS = {"vivamo": "#2f81f7", "vivamo-sqlite": "#db61a2", "bare": "#d9730d", "mercurius": "#1a9f4a", "postgraphile": "#a371f7"}
OTHER_COLORS = ["#bf8700", "#0d9aa5", "#d1434b"]  # other builds of the service
GREY = "#76808b"
PANEL_WIDTH, PANEL_HEIGHT, ROW_HEIGHT, LEFT, GAP, TOP = 400, 140, 230, 60, 70, 50
FORMATS = [(1e6, "{:g}M", 1e-6), (1e3, "{:g}k", 1e-3), (0, "{:g}", 1)]


def label(value):
    form, factor = next((form, factor) for least, form, factor in FORMATS if value >= least)
    return form.format(round(value * factor, 3))


def linear_ticks(largest):
    """Five round numbers, from 0 to a number that is not below the largest value."""
    steps = (factor * 10 ** power for power in range(-3, 9) for factor in (1, 2, 2.5, 5))
    step = next(step for step in steps if 4 * step >= largest)
    return [step * place for place in range(5)]


def decades(smallest, largest):
    """Powers of ten that enclose all values."""
    first, last = math.floor(math.log10(smallest)), math.ceil(math.log10(largest))
    return [10.0 ** power for power in range(first, max(last, first + 1) + 1)]


def text(x, y, content, anchor="middle", weight="normal"):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">{html.escape(content)}</text>'


def panel(left, top, clients, lines, ticks, position, unit):
    """One diagram: a line per target. `position` is the height of a value, from 0 to 1."""
    x = lambda place: left + PANEL_WIDTH * (place + 0.5) / len(clients)
    y = lambda value: top + PANEL_HEIGHT * (1 - position(value))
    drawn = [text(left, top - 10, f"{unit}, by number of clients", "start")]
    for tick in ticks:
        drawn += [f'<path d="M{left} {y(tick):.1f}h{PANEL_WIDTH}" stroke="{GREY}" stroke-opacity=".35"/>',
                  text(left - 8, y(tick) + 4, label(tick), "end")]
    drawn += [text(x(place), top + PANEL_HEIGHT + 18, f"{number:,}") for place, number in enumerate(clients)]
    for target, color, dashes, points in lines:
        places = [(x(clients.index(number)), y(value), f"{number:,} clients: {value:,.4g} {unit}") for number, value in points]
        path = "L".join(f"{across:.1f} {down:.1f}" for across, down, _ in places)
        drawn += [f'<path d="M{path}" fill="none" stroke="{color}" stroke-width="2"{dashes}/>'] if places else []
        drawn += [f'<circle cx="{across:.1f}" cy="{down:.1f}" r="3" fill="{color}"><title>{html.escape(target)}, {about}</title></circle>'
                  for across, down, about in places]
    return drawn


def color_of(target, others):
    if target not in COLORS and target.startswith("vivamo"):
        return next(others)
    return COLORS.get(target) or COLORS[target.partition("-")[0]]


def drawing(curves, titles):
    """Returns an SVG. `curves` maps each operation and target to a list of (clients, requests per second, p99 in ms).
    `titles` maps each operation to its title."""
    targets = list(dict.fromkeys(target for by_target in curves.values() for target in by_target))
    others = itertools.cycle(OTHER_COLORS)
    colors = {target: color_of(target, others) for target in targets}
    dashes = lambda target: ' stroke-dasharray="5 4"' if target.endswith("-least") else ""
    width, height = LEFT + 2 * PANEL_WIDTH + GAP + 20, TOP + ROW_HEIGHT * len(curves)
    drawn, x = [], LEFT
    for target in targets:
        drawn += [f'<path d="M{x} 16h24" stroke="{colors[target]}" stroke-width="2"{dashes(target)}/>', text(x + 30, 20, target, "start")]
        x += 50 + 7 * len(target)
    for row, (operation, by_target) in enumerate(curves.items()):
        top = TOP + row * ROW_HEIGHT + 30
        clients = sorted({number for points in by_target.values() for number, *_ in points})
        drawn.append(text(LEFT, top - 32, titles[operation], "start", "bold"))
        lines = lambda figure: [(target, colors[target], dashes(target), [(point[0], point[figure]) for point in points if point[figure]])
                                for target, points in by_target.items()]
        rates, latencies = lines(1), lines(2)
        values = lambda lines: [value for *_, points in lines for _, value in points] or [1]
        ticks = linear_ticks(max(values(rates)))
        drawn += panel(LEFT, top, clients, rates, ticks, lambda value: value / ticks[-1], "requests/s")
        powers = decades(min(values(latencies)), max(values(latencies)))
        height_of = lambda value: math.log(value / powers[0]) / math.log(powers[-1] / powers[0])
        drawn += panel(LEFT + PANEL_WIDTH + GAP, top, clients, latencies, powers, height_of, "p99 in ms")
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12" '
            f'fill="{GREY}" role="img">\n<title>Requests per second and 99th percentile of the latency, by number of clients</title>\n'
            + "\n".join(drawn) + "\n</svg>\n")
