#!/usr/bin/env python3
"""Plays an operator that wants to learn from response times which people are customers of other operators. The responses
themselves do not reveal it. Prints the number of right guesses for 60 people; by chance, 30 are right. See docs/benchmarks.md."""

import argparse, contextlib, http.client, json, random, statistics, subprocess, sys, time

from run import VIVAMO, Postgres, Sqlite, free_port, run, start

PEOPLE = 60  # half of them are known
CALIBRATION = 20  # further people; the attacker knows which of these people are known
OTHERS = 10  # operators that each known person is connected to
MAX_RIGHT = 36  # by chance, more right guesses have a probability of 3%
TRIES = 3  # a case fails if it exceeds MAX_RIGHT each time

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
arguments.add_argument("--program", default=str(VIVAMO), help="binary of the service")
arguments.add_argument("--databases", default="postgres,sqlite", help="databases to attack")
arguments.add_argument("--requests", type=int, default=30, help="requests per person and case")
arguments.add_argument("--cases", default="", help="run only the cases whose name contains this")

CREATE = "mutation ($input: CreateCustomerInput!) { createCustomer(input: $input) { outcome } }"
UPDATE = "mutation ($input: UpdateCustomerInput!) { updateCustomer(input: $input) { customer { version } } }"
VALIDATE = "query ($input: CreateCustomerInput!) { validateCustomer(input: $input) { faults { code } } }"
FIND = "query ($input: String!) { customer(by: { %s: $input }) { id } }"
FILTER = "query ($input: String!) { customers(filter: { %s: $input }) { totalCount edges { node { id } } } }"
MINE = {"email": "mine@example.com", "phone": "+14155550000"}
USED = "a key that is in use"


def create(data, id="new", **more):
    return CREATE, {"externalCustomerId": id, "data": data, **more}


def update(data, id="mine", **more):
    return UPDATE, {"customer": {"externalCustomerId": id}, "data": data, **more}


# The requests about a person, by email or by phone. The response is the same for known and unknown people.
CASES = {
    "update, reused key, email": lambda email, phone: update({"email": email}, idempotencyKey=USED),
    "update, reused key, phone": lambda email, phone: update({"phone": phone}, idempotencyKey=USED),
    "create, reused key, email": lambda email, phone: create({"email": email}, idempotencyKey=USED),
    "create, reused key, phone": lambda email, phone: create({"email": "new@example.com", "phone": phone}, idempotencyKey=USED),
    "create, id taken, email": lambda email, phone: create({"email": email}, "mine"),
    "create, id taken, phone": lambda email, phone: create({"email": "new@example.com", "phone": phone}, "mine"),
    "create, id taken, new key, email": lambda email, phone: create({"email": email}, "mine", idempotencyKey="new"),
    "create, own phone, email": lambda email, phone: create({"email": email, "phone": MINE["phone"]}),
    "create, own email, phone": lambda email, phone: create({"email": MINE["email"], "phone": phone}),
    "update, unknown customer, email": lambda email, phone: update({"email": email}, "unknown"),
    "customer by email": lambda email, phone: (FIND % "email", email),
    "customer by phone": lambda email, phone: (FIND % "phone", phone),
    "customers with email": lambda email, phone: (FILTER % "email", email),
    "customers with phone": lambda email, phone: (FILTER % "phone", phone),
    "search for email": lambda email, phone: (FILTER % "search", email),
    "validate, email": lambda email, phone: (VALIDATE, create({"email": email})[1]),
    "validate, phone": lambda email, phone: (VALIDATE, create({"email": "new@example.com", "phone": phone})[1]),
    "create, budget used up, email": lambda email, phone: create({"email": email}),
    "update, budget used up, email": lambda email, phone: update({"email": email}),
}
USED_UP = "budget used up"


class Client:
    """An operator with one connection."""

    def __init__(self, port, key):
        self.connection = http.client.HTTPConnection("127.0.0.1", port)
        self.headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def send(self, query, input):
        """Returns the time until the response arrived, and its data and codes."""
        body = json.dumps({"query": query, "variables": {"input": input}})
        started = time.perf_counter()
        self.connection.request("POST", "/graphql", body, self.headers)
        answer = self.connection.getresponse().read()
        elapsed = time.perf_counter() - started
        answer = json.loads(answer)
        return elapsed, [answer["data"], sorted(error["extensions"]["code"] for error in answer.get("errors", []))]


@contextlib.contextmanager
def server(program, url, disclosures):
    port = free_port()
    environment = {"DATABASE_URL": url, "VIVAMO_LISTEN": f"127.0.0.1:{port}", "VIVAMO_COST_PER_SECOND": "0",
                   "VIVAMO_DISCLOSURES_PER_HOUR": disclosures, "RUST_LOG": "error"}
    process = subprocess.Popen([program, "serve"], env=environment, stdout=subprocess.DEVNULL)
    try:
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port)
                connection.request("GET", "/readyz")
                if connection.getresponse().status == 200:
                    break
            except OSError:
                time.sleep(0.01)
        yield port
    finally:
        process.kill()
        process.wait()


def measure(client, case, people, requests):
    """The mean of the faster half of the times, for each person. The order of the requests is random, because the load of the
    machine changes."""
    client.connection.close()  # the server may have closed the idle connection; the next request opens a new one
    times, answers = [[] for _ in people], set()
    order = [number for number in range(len(people)) for _ in range(requests)]
    random.shuffle(order)
    for number in order:
        elapsed, answer = client.send(*CASES[case](*people[number]))
        times[number].append(elapsed)
        answers.add(json.dumps(answer))
        assert "INTERNAL" not in answer[1], answer
    assert len(answers) == 1, (case, answers)
    return [statistics.mean(sorted(of_person)[:(requests + 1) // 2]) for of_person in times]


def guess(client, case, known, unknown, requests):
    """The number of right guesses. Learns from the people of the calibration whether requests about known or about unknown people are faster."""
    people = known + unknown
    times = measure(client, case, people, requests)
    split, half = len(known), CALIBRATION // 2
    is_known_faster = statistics.mean(times[:half]) < statistics.mean(times[split:split + half])
    asked = [(times[n], n < split) for n in range(len(people)) if n % split >= half]
    ranked = [is_known for _, is_known in sorted(asked, reverse=not is_known_faster)]
    difference = statistics.median(times[:split]) - statistics.median(times[split:])
    return sum(ranked[:PEOPLE // 2]) + PEOPLE // 2 - sum(ranked[PEOPLE // 2:]), difference, statistics.median(times)


def attack(program, kind, url, options, is_older):
    """Runs the cases that `--cases` selects and returns those in which the attacker learns something. If `is_older`, the
    attacker's customer is older than the known people, and newer than the people that follow them in the indexes."""
    names = ["Attacker", *(f"Other {number}" for number in range(OTHERS))]
    operators = [json.loads(run(program, "operator", "create", name, "--json", env={"DATABASE_URL": url})) for name in names]
    # Known people have even numbers, so that the values of unknown people are between those of known people.
    numbers = range(1000, 1000 + PEOPLE + CALIBRATION)
    people = [[(f"person{n}@example.com", f"+1415555{2 * n}") for n in numbers[first::2]] for first in (0, 1)]
    following = [(f"person{n}-2@example.com", f"+1415555{2 * n + 1}") for n in numbers]
    address = {"line1": "1 Main Street", "city": "Town", "postalCode": "12345", "country": "US"}
    failed = []
    with server(program, url, "1000000") as port, server(program, url, "1") as port_used_up:
        attacker, *others = (Client(port, operator["key"]) for operator in operators)
        used_up = Client(port_used_up, operators[0]["key"])

        def create_people(people):
            for email, phone in people:
                data = {"email": email, "phone": phone, "firstName": "Ada", "lastName": "Lovelace", "address": address}
                for other in others:
                    assert other.send(*create(data, email))[1][1] == []

        create_people(following + [("connected@example.com", "+14155550001")])
        if not is_older:
            create_people(people[0])
        assert attacker.send(*create(MINE, "mine"))[1][1] == []
        if is_older:
            create_people(people[0])
        assert attacker.send(*update({"firstName": "Ada"}, idempotencyKey=USED))[1][1] == []
        assert used_up.send(*create({"email": "connected@example.com"}, "connected"))[1][1] == []
        for case in CASES:
            if options.cases not in case:
                continue
            client = used_up if USED_UP in case else attacker
            measure(client, case, people[0], 5)  # warms up
            for number in range(TRIES):
                right, difference, middle = guess(client, case, *people, options.requests)
                age = "older" if is_older else "newer"
                print(f"| {kind} | {age} | {case} | {right} of {PEOPLE} | {difference * 1e6:+.0f} µs of {middle * 1e6:.0f} µs |", flush=True)
                if right <= MAX_RIGHT:
                    break
            else:
                failed.append((kind, is_older, case))
    return failed


def main(options, folder, running):
    databases = {"sqlite": Sqlite(folder)}
    if "postgres" in options.databases:
        databases["postgres"] = Postgres(folder)
        running.append(databases["postgres"])
    print("\n| database | own customer | case | right | median of known minus unknown people |\n|---|---|---|--:|--:|")
    failed = []
    for kind in options.databases.split(","):
        for is_older in (False, True):
            name = f"timing-{is_older}"
            databases[kind].create(name)
            url = databases[kind].url(name)
            run(options.program, "migrate", env={"DATABASE_URL": url})
            failed += attack(options.program, kind, url, options, is_older)
    sys.exit(f"the attacker learns something: {failed}" if failed else 0)


if __name__ == "__main__":
    start(main, arguments.parse_args())
