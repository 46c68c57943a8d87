#!/usr/bin/env python3
"""Measures how much one operator can take from the others: processor time, connections, memory. See docs/benchmarks.md."""

import argparse, http.client, json, pathlib, socket, statistics, subprocess, threading, time

import run as service

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
arguments.add_argument("--program", default=str(service.VIVAMO), help="build of the service to measure")
arguments.add_argument("--databases", default="postgres,sqlite", help="databases to measure on")
arguments.add_argument("--faults", default="searches,lock,unread", help="what the first operator does to the others")
arguments.add_argument("--customers", type=int, default=400_000, help="number of customers; the first operator has half of them")
arguments.add_argument("--seconds", type=int, default=15, help="length of a measurement")
arguments.add_argument("--unread", type=int, default=1000, help="number of clients that do not read their response")
arguments.add_argument("--keys", type=int, default=10, help="number of keys of these clients")

SEARCHES = ["p e c e 1 f l 2", "l f 1 e c e p 2", "example com ext 1 first last person", "c o e f l p 1", "1 2 e c p f l ext"]
EXPENSIVE = "{ " + " ".join(
    f's{n}: customers(first: 100, filter: {{search: "{SEARCHES[n % len(SEARCHES)]}"}}) {{ totalCount nodes {{ id }} }}'
    for n in range(10)) + " }"
LARGE = ("{ customers(first: 30) { nodes { operators(first: 1) { nodes { customers(first: 40) { nodes { id address { line1 line2 "
         "city region } } } } } } } }")
LONG_ADDRESS = json.dumps({"line1": "𝕏" * 200, "line2": "𝕏" * 200, "city": "𝕏" * 200, "region": "𝕏" * 200, "postal_code": None, "country": "US"})
R1, W1 = (service.OPERATIONS[name][0] for name in ("r1", "w1"))


class Server:
    """The service with its default limits, with keys of the first two operators."""

    def __init__(self, program, database, name, folder, keys):
        self.port, self.log = service.free_port(), (folder / "isolation.log").open("w")
        environment = {"DATABASE_URL": database.url(name), "VIVAMO_KEY_SECRET": service.KEY_SECRET, "VIVAMO_LISTEN": f"127.0.0.1:{self.port}"}
        def key(operator, *options):
            command = (program, "key", "create", service.type_id("op_", operator), "--name", "isolation", "--json", *options)
            return json.loads(service.run(*command, env=environment))["key"]
        self.attackers, self.writer, self.victim = [key(1, "--read-only") for _ in range(keys)], key(1), key(2)
        self.process = subprocess.Popen([program], env=environment, stdout=subprocess.DEVNULL, stderr=self.log)
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                break
            except OSError:
                time.sleep(0.01)

    def stop(self):
        self.process.kill()
        self.process.wait()

    def rss(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


def message(key, query, variables):
    body = json.dumps({"query": query, "variables": variables})
    return body, {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}


class Client:
    def __init__(self, server, key):
        self.connection, self.key = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60), key

    def send(self, query, variables={}):
        """Returns the response and the milliseconds that it took."""
        started = time.monotonic()
        self.connection.request("POST", "/graphql", *message(self.key, query, variables))
        answer = self.connection.getresponse().read()
        return json.loads(answer), (time.monotonic() - started) * 1000


def codes(answer):
    return [error["extensions"]["code"] for error in answer.get("errors", [])]


def repeat(server, key, send, until, pause=0.0):
    """Sends requests one after the other and returns their latencies and error codes."""
    client, latencies, failures, number = Client(server, key), [], [], 0
    while not until():
        number += 1
        time.sleep(pause)
        answer, milliseconds = send(client, number)
        latencies.append(milliseconds)
        failures += codes(answer)
    return latencies, failures


numbers = iter(range(100_000_000, 200_000_000))
READ_CUSTOMERS = 5000

OPERATIONS = {
    # The second operator has each customer whose number is a multiple of 38.
    "r1": lambda client, number: client.send(R1, {"id": service.type_id("cus_", 38 * (number % READ_CUSTOMERS + 1))}),
    "w1": lambda client, number: client.send(W1, json.loads(json.dumps(
        {"input": {**service.OPERATIONS["w1"][1]["input"], "externalCustomerId": f"victim-~"}}).replace("#", "~").replace("~", str(next(numbers))))),
}


def victim(server, seconds):
    """Sends requests of the second operator. Returns their latencies and errors, by operation."""
    results = {}
    # The pauses keep the cost below the rate limit.
    for name, pause in (("r1", 0.005), ("w1", 0.05)):
        end = time.monotonic() + seconds / 2
        latencies, failures = repeat(server, server.victim, OPERATIONS[name], lambda: time.monotonic() > end, pause)
        latencies.sort()
        results[name] = {"count": len(latencies), "p50": statistics.median(latencies), "p99": latencies[int(len(latencies) * 0.99)],
                         "max": latencies[-1], "errors": sorted(set(failures)), "failed": len(failures)}
    return results


def in_background(work, count=1):
    stopped = threading.Event()
    threads = [threading.Thread(target=work, args=(stopped.is_set, number)) for number in range(count)]
    for thread in threads:
        thread.start()
    def stop():
        stopped.set()
        for thread in threads:
            thread.join()
    return stop


def show(title, quiet, loud):
    for name in OPERATIONS:
        before, after = quiet[name], loud[name]
        print(f"{title}, {name}: quiet p50 {before['p50']:.2f} p99 {before['p99']:.2f} ms; loud {after['count']} requests, p50 {after['p50']:.2f} "
              f"p99 {after['p99']:.2f} max {after['max']:.0f} ms = {after['p99'] / before['p99']:.1f} × quiet p99; "
              f"{after['failed']} failed {after['errors']}", flush=True)


def searches(server, database, name, options):
    quiet = victim(server, options.seconds)
    outcomes = []
    def attack(is_stopped, number):
        latencies, failures = repeat(server, server.attackers[0], lambda client, _: client.send(EXPENSIVE), is_stopped)
        outcomes.append((len(latencies), statistics.median(latencies), max(latencies), sorted(set(failures))))
    stop = in_background(attack, 4)
    time.sleep(1)
    loud = victim(server, options.seconds)
    stop()
    show("four expensive queries", quiet, loud)
    print("  attackers: requests, median ms, max ms, errors:", outcomes, flush=True)


def lock(server, database, name, options):
    if not isinstance(database, service.Postgres):
        return
    quiet = victim(server, options.seconds)
    customer = service.type_id("cus_", 1)
    # COMMIT releases the lock after the measurement.
    holder = subprocess.Popen([database.binaries / "psql", "-qX", database.url(name)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    holder.stdin.write(f"BEGIN; SELECT 1 FROM customer WHERE id = '{service.uuid_for(1)}' FOR UPDATE;\n")
    holder.stdin.flush()
    holder.stdout.readline()
    outcomes = []
    def update(_, number):
        query = f'mutation {{ updateCustomer(input: {{customer: {{id: "{customer}"}}, data: {{firstName: "Ada {number}"}}}}) {{ customer {{ version }} }} }}'
        answer, milliseconds = Client(server, server.writer).send(query)
        outcomes.append((round(milliseconds), codes(answer)))
    stop = in_background(update, 12)
    loud = victim(server, 3)
    holder.communicate("COMMIT;\n")
    stop()
    show("a locked row", quiet, loud)
    print("  updates of the row: ms, errors:", sorted(outcomes), flush=True)


def unread(server, database, name, options):
    first = "SELECT customer_id FROM customer_operator WHERE operator_id = (SELECT id FROM operator WHERE name = 'Operator 1') ORDER BY connected_at, customer_id LIMIT 100"
    database.sql(name, f"BEGIN; UPDATE customer SET address = '{LONG_ADDRESS}' WHERE id IN ({first}); COMMIT;")
    before, connections, statuses = server.rss(), [], {}
    answer, milliseconds = Client(server, server.attackers[0]).send(LARGE)
    print(f"a large response: {len(json.dumps(answer, ensure_ascii=False).encode()) / 1e6:.1f} MB, {milliseconds:.0f} ms, {set(codes(answer))}")
    for number in range(options.unread):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        body, headers = message(server.attackers[number % len(server.attackers)], LARGE, {})
        head = "".join(f"{title}: {value}\r\n" for title, value in {**headers, "Host": "x", "Content-Length": len(body)}.items())
        connection.sendall(f"POST /graphql HTTP/1.1\r\n{head}\r\n{body}".encode())
        connections.append(connection)
    peak, started = 0, time.monotonic()
    while time.monotonic() - started < 25:
        peak = max(peak, server.rss())
        time.sleep(0.05)
    loud = victim(server, 4)
    peak = max(peak, server.rss())
    for connection in connections:
        connection.setblocking(False)
        try:
            status = connection.recv(12).decode().split()[1]
        except (OSError, IndexError):
            status = "none"
        statuses[status] = statuses.get(status, 0) + 1
        connection.close()
    closed = server.rss()
    for _ in range(60):
        time.sleep(1)
        Client(server, server.victim).send("{ viewer { role } }")
    print(f"{options.unread} unread responses: RSS {before:.0f} MiB before, at most {peak:.0f}, {closed:.0f} at their end, {server.rss():.0f} a minute later; "
          f"HTTP statuses {statuses}; meanwhile r1 p99 {loud['r1']['p99']:.1f} ms, w1 p99 {loud['w1']['p99']:.1f} ms, failed {loud['r1']['failed'] + loud['w1']['failed']}",
          flush=True)


def main(options, folder, running):
    for kind in options.databases.split(","):
        database = service.Postgres(folder) if kind == "postgres" else service.Sqlite(folder)
        if kind == "postgres":
            running.append(database)
        print(f"== {options.program} on {kind}, {options.customers} customers", flush=True)
        service.VIVAMO = options.program
        service.fill(database, "seed", options.customers, 0)
        for fault in options.faults.split(","):
            database.copy("seed", fault)
            server = Server(options.program, database, fault, folder, options.keys)
            running.append(server)
            {"searches": searches, "lock": lock, "unread": unread}[fault](server, database, fault, options)
            server.stop()


if __name__ == "__main__":
    given = arguments.parse_args()
    if given.customers < 38 * READ_CUSTOMERS:
        arguments.error(f"--customers must be at least {38 * READ_CUSTOMERS}")
    service.start(main, given)
