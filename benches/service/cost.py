#!/usr/bin/env python3
"""Measures the processor time per unit of cost of 20 requests, cheap and expensive ones. See docs/benchmarks.md."""

import argparse, http.client, json, sys, threading, time

import run as service
from run import CUSTOMER, PLATFORM_KEY, ROOT, Postgres, Server, Sqlite, fill, processor_seconds, type_id

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
arguments.add_argument("--customers", type=int, default=200_000, help="number of customers in the database")
arguments.add_argument("--databases", default="postgres,sqlite", help="databases to measure")
arguments.add_argument("--seconds", type=float, default=3, help="seconds per request")
arguments.add_argument("--program", help="the service to measure; without this option, this source tree is built")

MAX_RATIO = 5
PAGE = f"nodes {{ {CUSTOMER} }} pageInfo {{ hasNextPage endCursor }}"
EVERYBODY = 'createdAt: { from: "2020-01-01T00:00:00Z" }'
NOBODY = 'createdAt: { before: "2020-01-01T00:00:00Z" }'
# Prefixes of words that all of the operator's customers have.
COMMON = "example com ext person first last 1 2"
WIDE = " ".join(f"a{n}: address {{ line1 line2 city region postalCode country }}" for n in range(30))
BY_ID = f"customer(by: {{ id: $id }}) {{ {CUSTOMER} }}"
# 460 fields of a customer that does not exist. The directives keep the service from merging the fields. The name of the
# operation varies, so no document is in the cache.
LONG = " ".join(f"{name}: customer(by: {{ id: \"cus_\" }}) {{ {CUSTOMER} " + f"... @include(if: true) {{ {CUSTOMER} }} " * 2 + "}" for name in "abcdefghij")
# Name, key (0: operator, 1: platform), document, and variables. These marks are replaced in each request: `~` by the id
# of a customer, `#` by a new number, and `%` by a number below 900.
REQUESTS = [
    ("the viewer", 0, "{ viewer { role } }", {}),
    ("a customer by id", 0, f"query ($id: ID!) {{ {BY_ID} }}", {"id": "~"}),
    ("a customer by id, ten times", 0, "query ($id: ID!) { " + " ".join(f"c{n}: {BY_ID}" for n in range(10)) + " }", {"id": "~"}),
    ("a document of 460 fields, not cached", 0, f"query q# {{ {LONG} }}", {}),
    ("validateCustomer", 0, "query ($input: CreateCustomerInput!) { validateCustomer(input: $input) { email } }",
     {"input": {"externalCustomerId": "v-#", "data": {"email": "v#@example.com"}}}),
    ("a page of 20", 0, f"{{ customers {{ {PAGE} }} }}", {}),
    ("a page of 100", 0, f"{{ customers(first: 100) {{ {PAGE} }} }}", {}),
    ("a page of 100 ids", 0, "{ customers(first: 100) { nodes { id } } }", {}),
    ("100 customers with 30 addresses each", 0, f"{{ customers(first: 100) {{ nodes {{ {WIDE} }} }} }}", {}),
    ("100 customers with operators and history", 1,
     f"{{ customers(first: 100) {{ nodes {{ {CUSTOMER} operators {{ nodes {{ name }} }} history {{ nodes {{ type }} }} }} }} }}", {}),
    ("totalCount of half of all customers", 0, "{ customers(first: 1) { totalCount } }", {}),
    ("search of a rare word", 0, f"query ($search: String!) {{ customers(filter: {{ search: $search }}) {{ {PAGE} }} }}",
     {"search": "last1%"}),
    ("search of 8 common words, totalCount", 0, f'{{ customers(filter: {{ search: "{COMMON}" }}) {{ totalCount {PAGE} }} }}', {}),
    ("search of 2 common words and a filter that nobody matches", 0, f'{{ customers(filter: {{ search: "example ext", {NOBODY} }}) {{ {PAGE} }} }}', {}),
    ("search of 2 words that are neither rare nor common, totalCount", 0, f'{{ customers(filter: {{ search: "first1 last1" }}) {{ totalCount {PAGE} }} }}', {}),
    ("a filter that all match", 0, f"{{ customers(filter: {{ {EVERYBODY} }}) {{ {PAGE} }} }}", {}),
    ("a filter that nobody matches", 0, f"{{ customers(filter: {{ {NOBODY} }}) {{ {PAGE} }} }}", {}),
    ("ten filters by `missing`, totalCount", 0, "{ " + " ".join(
        f"c{n}: customers(first: {n + 1}, filter: {{ missing: [PHONE] }}) {{ totalCount }}" for n in range(10)) + " }", {}),
    ("createCustomer", 0, "mutation ($input: CreateCustomerInput!) { createCustomer(input: $input) { outcome } }",
     {"input": {"externalCustomerId": "new-#", "data": {"email": "new#@example.com", "firstName": "New", "lastName": "Customer"}}}),
    ("updateCustomer", 0, "mutation ($id: ID!, $name: String!) { updateCustomer(input: { customer: { id: $id }, data: { firstName: "
     "$name } }) { replayed } }", {"id": "~", "name": "New #"}),
]


def measure_limit(program, database, customers, key, folder):
    """Sends mutations for 6 seconds, ten at a time, to a server with the default limit. Prints the number of accepted ones."""
    server = Server("vivamo", [program], database, "cost", customers, [key], folder, cost_per_second="200")
    document = REQUESTS[-2][2]
    accepted, started = [], time.monotonic()

    def send(thread):
        connection, number = http.client.HTTPConnection(server.url.split("/")[2]), 0
        while time.monotonic() - started < 6:
            number += 1
            unique = f"{thread}-{number}"
            body = {"query": document, "variables": {"input": {"externalCustomerId": f"limit-{unique}", "data": {
                "email": f"limit{unique}@example.com"}}}}
            try:
                connection.request("POST", "/graphql", json.dumps(body), {
                    "Content-Type": "application/json", "Authorization": f"Bearer {key}"})
                answer = connection.getresponse()
                body = json.loads(answer.read())
                accepted.extend([number] if answer.status == 200 and "errors" not in body else [])
            except (http.client.HTTPException, OSError):  # a refused request may end its connection
                connection.close()

    try:
        threads = [threading.Thread(target=send, args=[thread]) for thread in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        server.stop()
    print(f"A client that ignores its limit for 6 s made {len(accepted)} mutations; the limit allows 320.")


def measure(server, index, seconds):
    """Sends a request repeatedly. Returns the processor time in µs and the cost of one request."""
    name, key, document, variables = REQUESTS[index]
    connection = http.client.HTTPConnection(server.url.split("/")[2])
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {[*server.keys, PLATFORM_KEY][key]}", "Vivamo-Cost": "1"}
    request = json.dumps({"query": document, "variables": variables})

    def send(number):
        customer = type_id("cus_", number * 1_000_003 % (server.customers // 2) * 2 + 1)
        body = request.replace("~", customer).replace("#", str(number)).replace("%", str(number % 900))
        connection.request("POST", "/graphql", body, headers)
        answer = json.load(connection.getresponse())
        assert "errors" not in answer, (name, answer)
        return answer["extensions"]["cost"]["used"]

    sample = lambda: processor_seconds(server.process.pid)[0] + server.database.processor_seconds()
    start = index * 1_000_000
    for number in range(20):
        send(start + number)
    before, started, costs = sample(), time.monotonic(), []
    while time.monotonic() - started < seconds or len(costs) < 10:
        costs.append(send(start + 20 + len(costs)))
    connection.close()
    return (sample() - before) / len(costs) * 1e6, sum(costs) / len(costs)


def main(options, folder, running):
    if options.program:
        service.VIVAMO = options.program
    else:
        service.run("cargo", "build", "--locked", "--profile", "dist", "--bin", "vivamo", cwd=ROOT)
    program = service.VIVAMO
    too_far_apart = False
    for kind in options.databases.split(","):
        database = {"postgres": Postgres, "sqlite": Sqlite}[kind](folder)
        if kind == "postgres":
            running.append(database)
        [key] = fill(database, "cost", options.customers, 1)
        server = Server("vivamo", [program], database, "cost", options.customers, [key], folder)
        running.append(server)
        print(f"\n{kind}, {options.customers} customers\n\n| request | µs | cost | µs per unit of cost |\n|---|--:|--:|--:|", flush=True)
        ratios = []
        for index, (name, *_) in enumerate(REQUESTS):
            microseconds, cost = measure(server, index, options.seconds)
            ratios.append(microseconds / cost)
            print(f"| {name} | {microseconds:.0f} | {cost:.1f} | {ratios[-1]:.0f} |", flush=True)
        ratio = max(ratios) / min(ratios)
        print(f"\nThe most expensive unit takes {ratio:.1f} times as long as the cheapest.")
        too_far_apart |= ratio > MAX_RATIO
        server.stop()
        running.remove(server)
        measure_limit(program, database, options.customers, key, folder)
    sys.exit(too_far_apart)


if __name__ == "__main__":
    service.start(main, arguments.parse_args())
