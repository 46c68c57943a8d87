"""Prints the medians of a run as Markdown tables, and draws its curves."""

import math, statistics

import plot

TITLES = {"r1": "r1, by id", "r2": "r2, by external id", "r3": "r3, first page", "r3d": "r3d, deep page", "s1": "s1, search",
          "s2": "s2, search, short page", "s3": "s3, search of a whole name, short page", "s4": "s4, search of a name and a phone",
          "s5": "s5, search of a whole name",
          "w1": "w1, create", "w2": "w2, update", "u1": "u1, update, one operator", "u2": "u2, update, two operators",
          "f1": "f1, poll of changes"}


def median(results, **row):
    """The medians of the rows with these values, or None if there are no such rows."""
    rows = [figures for figures in results["rows"] if row.items() <= figures.items()]
    names = [name for name, value in rows[0].items() if isinstance(value, (int, float))] if rows else []
    return {name: statistics.median(figures[name] for figures in rows) for name in names} or None


def rate(figures):
    return figures["req/s"]


def cost(figures):
    return figures["server µs"] + figures["PostgreSQL µs"]


def p50(figures):
    return figures["p50 ms"]


def ratios(one, other, *figures):
    if not one or not other:
        return [""] * len(figures)
    return [f"{figure(one) / (figure(other) or math.nan):.2f}" for figure in figures]


def ratios_in_rounds(results, one, other, row, *figures):
    """The medians of the ratios of two targets in each round. The targets are measured one after the other, so a change of the machine's
    speed between two rounds does not change a ratio."""
    in_round = lambda target: {figures["round"]: figures for figures in results["rows"] if {"target": target, **row}.items() <= figures.items()}
    ones, others = in_round(one), in_round(other)
    pairs = [(ones[round], others[round]) for round in ones.keys() & others.keys()]
    return [f"{statistics.median(figure(one) / (figure(other) or math.nan) for one, other in pairs):.2f}" if pairs else "" for figure in figures]


def table(titles, rows, texts=1):
    """Prints a table whose first columns are texts."""
    print(f"\n| {' | '.join(titles)} |\n|{' --- |' * texts}{' --: |' * (len(titles) - texts)}")
    for row in rows:
        print("|", " | ".join(row), "|")


def write(results, earlier):
    """Prints all figures, the short tables for docs/benchmarks.md, and the ratios to earlier results."""
    targets = list(results["targets"])
    first, *others = targets
    operations = [operation for operation in TITLES if median(results, operation=operation)]
    clients = sorted({row["connections"] for row in results["rows"]})
    print(f"\n{results['settings']}")
    print_all(results, earlier, operations, clients)
    for number in clients:
        figures = lambda operation, target: median(results, operation=operation, target=target, connections=number)

        def cell(now):
            return f"{cost(now):.0f} µs, {p50(now):.2f} ms, {rate(now):,.0f}/s" if now else ""

        def ratio(operation, target):
            row = {"operation": operation, "connections": number}
            return ", ".join(filter(None, ratios_in_rounds(results, first, target, row, cost, p50)))

        print(f"\nClients: {number}. Processor time per request (server and PostgreSQL), p50, requests per second:")
        table(["", *targets], [[TITLES[operation], *(cell(figures(operation, target)) for target in targets)] for operation in operations])
        if others:
            print(f"\nClients: {number}. {first} ÷ target: processor time, p50:")
            table(["", *others], [[TITLES[operation], *(ratio(operation, target) for target in others)] for operation in operations])
    if len(clients) > 2:
        print("\nRequests per second, p99, by number of clients:")
        table(["", "target", *map(str, clients)], [
            [TITLES[operation], target, *(f"{per_second:,.0f}/s, {p99:,.1f} ms" for _, per_second, p99 in points)]
            for operation, by_target in curves(results).items() for target, points in by_target.items()], 2)
    memory = lambda target: [row["RSS MiB"] for row in results["rows"] if row["target"] == target]
    in_round = lambda about: len(about["SQL"]) * len(clients)
    table(["target", "start to first answer, ms", "RSS MiB after the first round", "RSS MiB after the last round"], [
        [target, f"{about['startup ms']:.0f}", f"{max(memory(target)[:in_round(about)]):.0f}", f"{memory(target)[-1]:.0f}"]
        for target, about in results["targets"].items()])


def print_all(results, earlier, operations, clients):
    first = next(iter(results["targets"]))
    titles = ["", "clients", "target", "req/s", "p50 ms", "p99 ms", "server µs", "PostgreSQL µs", "SQL", "RSS MiB", "other load %", "errors",
              f"{first} ÷ target: req/s", "µs", "p50"] + ["now ÷ earlier: req/s", "µs", "p50"] * bool(earlier)
    rows = []
    for operation in operations:
        for number in clients:
            for target, about in results["targets"].items():
                here = {"operation": operation, "connections": number}
                if now := median(results, target=target, **here):
                    cells = [f"{now[title]:.{'2' if ' ms' in title else '0'}f}" if title in now else
                             str(about["SQL"].get(operation) or "") for title in titles[3:12]]
                    cells += ratios_in_rounds(results, first, target, here, rate, cost, p50)
                    cells += ratios(now, median(earlier, target=target, **here), rate, cost, p50) if earlier else []
                    rows.append([operation, str(number), target, *cells])
    table(titles, rows, 3)


def curves(results):
    """For each operation and target a list of (clients, requests per second, p99 in ms)."""
    clients = sorted({row["connections"] for row in results["rows"]})

    def points(operation, target):
        figures = ((number, median(results, operation=operation, target=target, connections=number)) for number in clients)
        return [(number, rate(now), now["p99 ms"]) for number, now in figures if now]

    found = {operation: {target: points(operation, target) for target in results["targets"] if points(operation, target)}
             for operation in TITLES}
    return {operation: by_target for operation, by_target in found.items() if by_target}


def drawing(results):
    """The curves as SVG."""
    return plot.drawing(curves(results), TITLES)
