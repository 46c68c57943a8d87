#!/usr/bin/env python3
"""Measures the requests per second and the processor time per request of the service and of comparable servers. See docs/benchmarks.md."""

import argparse, contextlib, glob, json, math, os, pathlib, platform, resource, shutil, socket, sqlite3, subprocess, sys, tempfile, time
import urllib.error, urllib.request, uuid

import report

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
VIVAMO = TARGET / "dist/vivamo"
PLATFORM_KEY = "the-key-of-the-platform-in-the-benchmark"
KEY_SECRET = "the-secret-that-hashes-keys-in-the-benchmark"
UNREACHABLE_LIMIT = "1000000"  # the limits are on, but no request reaches them

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
arguments.add_argument("--customers", default="200000",
                       help="number of customers in the database; several numbers measure only the service, once per number")
arguments.add_argument("--targets", help="servers to measure; NAME=PROGRAM is another build of the service, for example vivamo-before=/path/to/vivamo",
                       default="vivamo,vivamo-sqlite,bare-least,bare-same-work,mercurius-least,mercurius-same-work,postgraphile")
arguments.add_argument("--operations", default="r1,r2,r3,r3d,s1,w1,w2,f1", help="operations to measure; docs/benchmarks.md lists them")
arguments.add_argument("--rounds", type=int, default=5, help="number of rounds; the report shows medians")
arguments.add_argument("--seconds", type=int, default=2, help="seconds per measurement; longer if many clients send to a slow target")
arguments.add_argument("--warm-up", type=int, default=1, help="seconds per measurement of the warm-up round")
arguments.add_argument("--connections", default="1,32", help="number of clients that send at the same time; each number is measured in each round")
arguments.add_argument("--plot", help="SVG file to write; it shows throughput and latency by number of clients")
arguments.add_argument("--json", help="file to write the results to")
arguments.add_argument("--program", help="the service to measure; without this option, this source tree is built")
arguments.add_argument("--compare", help="file that an earlier run wrote with --json, to compare the results with")

CUSTOMER = ("id email phone firstName lastName address { line1 line2 city region postalCode country } version createdAt "
            "updatedAt")
PAGE = ("query ($operator: ID!, $first: Int!, $after: String) { operator(id: $operator) { customers(first: $first, after: "
        "$after) { edges { node { id email phone firstName lastName createdAt operators { edges { externalCustomerId node "
        "{ id name } } } } } pageInfo { hasNextPage endCursor } } } }")
# Document, variables, and a string that every response must contain. `~` is replaced by one of several values, `#` by a number
# that is used only once. A new operation also needs values in `prepare`, a comparison in `check`, and a title in report.py. A new
# peer needs an entry in `PEERS` and a command in `program`. `supports` excludes operations that a target does not have.
OPERATIONS = {
    "r1": (f"query ($id: ID!) {{ customer(by: {{id: $id}}) {{ {CUSTOMER} }} }}", {"id": "~"}, '"email":"person'),
    "r2": (f"query ($id: String!) {{ customer(by: {{externalCustomerId: $id}}) {{ {CUSTOMER} }} }}", {"id": "~"},
           '"email":"person'),
    "r3": (PAGE, {"operator": "OPERATOR", "first": 50}, '"endCursor":"'),
    "r3d": (PAGE, {"operator": "OPERATOR", "first": 50, "after": "~"}, '"endCursor":"'),
    "s1": ("query ($search: String!) { customers(first: 20, filter: {search: $search}) { edges { node { id email phone "
           "firstName lastName } } pageInfo { hasNextPage endCursor } } }", {"search": "~"}, '"lastName":"Last'),
    "w1": (f"mutation ($input: CreateCustomerInput!) {{ createCustomer(input: $input) {{ outcome customer {{ {CUSTOMER} }} "
           "} }", {"input": {"externalCustomerId": "new-#", "data": {
               "email": "new#@example.com", "phone": "+4915#", "firstName": "New", "lastName": "Customer",
               "address": {"line1": "1 Main Street", "city": "Town", "postalCode": "12345", "country": "US"}}}},
           '"outcome":"CREATED"'),
    "w2": ("mutation ($id: ID!, $firstName: String!) { updateCustomer(input: {customer: {id: $id}, data: {firstName: "
           "$firstName}}) { customer { id email phone firstName lastName version updatedAt } } }",
           {"id": "~", "firstName": "New #"}, '"firstName":"New '),
    "f1": ("query ($after: String) { changes(after: $after) { changes { id type occurredAt customerId externalCustomerId version "
           "changedFields own } cursor hasMore } }", {"after": "~"}, '"changes":[]'),
}
SEARCHES = "s1", "s2", "s3", "s4", "s5"
OPERATIONS["s5"] = OPERATIONS["s1"]
OPERATIONS["s2"] = OPERATIONS["s3"] = OPERATIONS["s4"] = (OPERATIONS["s1"][0].replace("first: 20", "first: 2"), *OPERATIONS["s1"][1:])
OPERATIONS["u1"] = OPERATIONS["u2"] = OPERATIONS["w2"]
# The schema of PostGraphile follows from the tables. With aliases, its responses have the shape of the other targets'
# responses, except for `link` and for the name `postal_code` in `address`.
ROW = CUSTOMER.replace("id ", "id: rowId ", 1).replace("address { line1 line2 city region postalCode country }", "address")
POSTGRAPHILE_PAGE = (
    "query ($operator: UUID!, $first: Int!, $after: Cursor) { operator: operatorByRowId(rowId: $operator) { customers: "
    "customerOperatorsByOperatorId(first: $first, after: $after, orderBy: [CONNECTED_AT_ASC, CUSTOMER_ID_ASC]) { edges: nodes { node: "
    "customerByCustomerId { id: rowId email phone firstName lastName createdAt operators: customerOperatorsByCustomerId(orderBy: "
    "[CONNECTED_AT_ASC, OPERATOR_ID_ASC]) { edges: nodes { externalCustomerId node: operatorByOperatorId { id: rowId name } } } } } "
    "pageInfo { hasNextPage endCursor } } } }")
POSTGRAPHILE = {
    "r1": f"query ($id: UUID!) {{ customer: customerByRowId(rowId: $id) {{ {ROW} }} }}",
    "r2": "query ($operator: UUID!, $id: String!) { link: customerOperatorByOperatorIdAndExternalCustomerId(operatorId: $operator, "
          f"externalCustomerId: $id) {{ customer: customerByCustomerId {{ {ROW} }} }} }}",
    "r3": POSTGRAPHILE_PAGE, "r3d": POSTGRAPHILE_PAGE,
}
# Columns whose values differ between two targets that have done the same work.
UNIQUE_COLUMNS = ("id", "customer_id", "request_id", "position")
# Name of a target, its folder in `peers`, and the value of `WORK`.
PEERS = {name: (name.partition("-")[0], name.partition("-")[2])
         for name in ("bare-least", "bare-same-work", "mercurius-least", "mercurius-same-work", "postgraphile")}


def run(*command, **options):
    return subprocess.run([str(part) for part in command], check=True, text=True, stdout=subprocess.PIPE, **options).stdout


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def uuid_for(n):
    """The id of the customer or operator with this number, as in seed.sql."""
    return uuid.UUID(f"018{n:09}70008000000000000000")


def type_id(prefix, n):
    digits = "0123456789abcdefghjkmnpqrstvwxyz"
    return prefix + "".join(digits[uuid_for(n).int >> 5 * place & 31] for place in reversed(range(26)))


class Postgres:
    """A new cluster with durable commits, without autovacuum, and with rare checkpoints."""

    # A quarter of the machine's memory, as PostgreSQL's documentation recommends.
    SHARED_BUFFERS = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4 // 2**20
    SETTINGS = (f"shared_buffers={SHARED_BUFFERS}MB max_wal_size=16GB checkpoint_timeout=1h autovacuum=off "
                "listen_addresses=127.0.0.1 wal_level=minimal max_wal_senders=0")
    # The SQLite functions that seed.sql uses and PostgreSQL lacks, and settings of the session that fills the tables. The first setting switches off
    # foreign keys and triggers.
    FUNCTIONS = """
        CREATE FUNCTION unhex(text) RETURNS uuid IMMUTABLE LANGUAGE sql AS 'SELECT $1::uuid';
        CREATE FUNCTION strftime(text, bigint, text) RETURNS timestamptz IMMUTABLE LANGUAGE sql AS 'SELECT to_timestamp($2)';
        SET session_replication_role = replica; SET maintenance_work_mem = '512MB'; SET work_mem = '256MB';
        SET client_min_messages = warning;"""
    DROP_FUNCTIONS = "DROP FUNCTION unhex; DROP FUNCTION strftime;"
    # With `wal_level=minimal`, PostgreSQL does not log inserts into a table that the same transaction has truncated.
    TRUNCATE = "TRUNCATE operator, api_key, customer, customer_operator, customer_event, customer_word CASCADE;"
    WORDS_KEY = "ALTER TABLE customer_word {} CONSTRAINT customer_word_pkey {};"

    def __init__(self, folder):
        installed = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb")) or [shutil.which("initdb")]
        self.binaries = pathlib.Path(installed[-1] or sys.exit("PostgreSQL is not installed")).parent
        self.data, self.port = folder / "postgres", free_port()
        self.data.mkdir()
        if os.getuid() == 0:
            shutil.chown(self.data, "postgres")
        self.program("initdb", "-D", self.data, "-A", "trust", "-U", "postgres", "--no-sync")
        settings = "".join(f" -c {setting}" for setting in self.SETTINGS.split())
        self.program("pg_ctl", "start", "-w", "-D", self.data, "-l", self.data / "log", "-o",
                     f"-p {self.port} -c unix_socket_directories='' {settings}")

    def program(self, name, *options):
        """Runs a program of PostgreSQL, as the user postgres if this script runs as root."""
        as_postgres = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
        subprocess.run([self.binaries / name, *options], check=True, stdout=subprocess.DEVNULL, cwd="/", **as_postgres)

    def stop(self):
        self.program("pg_ctl", "stop", "-w", "-m", "immediate", "-D", self.data)

    def url(self, name):
        return f"postgres://postgres@127.0.0.1:{self.port}/{name}"

    def sql(self, name, sql):
        """Runs statements and returns the rows as lists of strings."""
        printed = run(self.binaries / "psql", "-qAtX", "-F", "\t", "-v", "ON_ERROR_STOP=1", self.url(name), input=sql)
        return [line.split("\t") for line in printed.splitlines()]

    def create(self, name):
        self.sql("postgres", f'CREATE DATABASE "{name}"')

    def copy(self, seed, name):
        self.sql("postgres", f'CREATE DATABASE "{name}" TEMPLATE "{seed}" STRATEGY file_copy')

    def indexes(self, name):
        """The SQL that drops the indexes, and the SQL that creates them again."""
        rows = self.sql(name, "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND indexname NOT LIKE '%_pkey'")
        return ("".join(f'DROP INDEX "{index}";' for index, _ in rows) + self.WORDS_KEY.format("DROP", ""),
                "".join(f"{sql};" for _, sql in rows) + self.WORDS_KEY.format("ADD", "PRIMARY KEY (operator_id, customer_id, place)"))

    def optimize(self, name):
        self.sql(name, "VACUUM (ANALYZE)")
        self.sql(name, "CHECKPOINT")

    def processor_seconds(self):
        """Processor seconds of all processes of the cluster."""
        first = (self.data / "postmaster.pid").read_text().split()[0]
        children = pathlib.Path(f"/proc/{first}/task/{first}/children").read_text().split()
        return sum(processor_seconds(first)) + sum(processor_seconds(child)[0] for child in children)


class Sqlite:
    FUNCTIONS = DROP_FUNCTIONS = TRUNCATE = ""

    def __init__(self, folder):
        self.folder = folder

    def file(self, name):
        return self.folder / f"{name}.db"

    def url(self, name):
        return f"sqlite://{self.file(name)}"

    def sql(self, name, sql):
        with contextlib.closing(sqlite3.connect(self.file(name), isolation_level=None)) as connection:
            connection.create_function("unhex", 1, bytes.fromhex, deterministic=True)
            if ";" in sql:
                return connection.executescript(sql)
            return [[str(value) for value in row] for row in connection.execute(sql)]

    def create(self, name):
        pass

    def copy(self, seed, name):
        shutil.copy(self.file(seed), self.file(name))

    def indexes(self, name):
        rows = self.sql(name, "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")
        return "".join(f'DROP INDEX "{index}";' for index, _ in rows), "".join(f"{sql};" for _, sql in rows)

    def optimize(self, name):
        self.sql(name, "PRAGMA wal_checkpoint(TRUNCATE)")

    def processor_seconds(self):
        return 0  # SQLite runs in the process of the server


def fill(database, name, customers, keys, program=None):
    """Creates and fills the tables, and returns API keys of the first operator. The indexes are created last, which is
    much faster."""
    program = program or VIVAMO
    database.create(name)
    environment = {"DATABASE_URL": database.url(name), "VIVAMO_KEY_SECRET": KEY_SECRET}
    run(program, "migrate", env=environment)
    dropped, created = database.indexes(name)
    seed = (HERE / "seed.sql").read_text().replace("{customers}", str(customers))
    database.sql(name, f"{database.FUNCTIONS} BEGIN; {database.TRUNCATE} {dropped} {seed} {created} COMMIT; {database.DROP_FUNCTIONS}")
    create = lambda: json.loads(run(program, "key", "create", type_id("op_", 1), "--name", "bench", "--json", env=environment))["key"]
    keys = [create() for _ in range(keys)]
    database.optimize(name)
    return keys


def keys_for(connections):
    """The number of API keys for this number of clients. The service limits the requests that each key has in flight."""
    return math.ceil(connections / 50)


class Server:
    def __init__(self, name, program, database, database_name, customers, keys, folder, cost_per_second=UNREACHABLE_LIMIT):
        """Starts a server and waits for its first response."""
        self.name, self.database, self.database_name, self.folder = name, database, database_name, folder
        self.keys = keys
        self.customers = customers
        self.is_vivamo, port = name.startswith("vivamo"), free_port()
        self.url, self.log = f"http://127.0.0.1:{port}/graphql", folder / f"{name}.log"
        self.operator = type_id("op_", 1) if self.is_vivamo else str(uuid_for(1))
        environment = {
            "DATABASE_URL": database.url(database_name), "VIVAMO_LISTEN": f"127.0.0.1:{port}", "VIVAMO_PLATFORM_KEY": PLATFORM_KEY,
            "VIVAMO_KEY_SECRET": KEY_SECRET,
            "VIVAMO_COST_PER_SECOND": cost_per_second, "VIVAMO_DISCLOSURES_PER_HOUR": UNREACHABLE_LIMIT,
            "NODE_ENV": "production", "GRAPHILE_ENV": "production", "PORT": str(port), "WORK": PEERS.get(name, ("", ""))[1],
            "KEYS": ",".join([*keys, PLATFORM_KEY]), "OPERATOR": str(uuid_for(1)), "PATH": os.environ["PATH"]}
        started = time.monotonic()
        self.process = subprocess.Popen(program, env=environment, stdout=subprocess.DEVNULL, stderr=self.log.open("w"))
        while True:
            try:
                self.ask("r1", self.customer(1))
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() - started > 30:
                    sys.exit(f"{name} does not answer: {self.log.read_text()}")
                time.sleep(0.001)
        self.startup_ms = (time.monotonic() - started) * 1000

    def stop(self):
        self.process.kill()
        self.process.wait()

    def customer(self, n):
        return type_id("cus_", n) if self.is_vivamo else str(uuid_for(n))

    def keys_for(self, operation, connections=1):
        """The keys for an operation. For r3 and r3d: the platform key, because only this key sees the links of all operators.
        Otherwise: the operator's keys, one for each 50 clients."""
        return [PLATFORM_KEY] if operation.startswith("r3") else self.keys[:keys_for(connections)]

    def supports(self, operation):
        if operation == "f1":
            return self.is_vivamo and self.has_feed()
        return self.is_vivamo or operation not in SEARCHES and (self.name != "postgraphile" or operation in POSTGRAPHILE)

    def request(self, operation):
        document, variables, _ = OPERATIONS[operation]
        if self.name == "postgraphile":
            document, variables = POSTGRAPHILE[operation], {"operator": "OPERATOR"} | variables
        return json.dumps({"query": document, "variables": variables}).replace('"OPERATOR"', f'"{self.operator}"')

    def ask(self, operation, value="", number="", **variables):
        """Sends a request and returns the data of the response."""
        request = json.loads(self.request(operation).replace("~", value).replace("#", number))
        request["variables"].update(variables)
        return self.send(operation, request)

    def send(self, operation, request):
        """Sends a request with the key of this operation and returns the data of the response."""
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.keys_for(operation)[0]}"}
        try:
            response = urllib.request.urlopen(urllib.request.Request(self.url, json.dumps(request).encode(), headers))
            self.request_id, answer = response.headers["x-request-id"], json.load(response)
        except urllib.error.HTTPError as error:
            sys.exit(f"{self.name}, {operation}: HTTP {error.code} {error.read().decode()}")
        assert "errors" not in answer, (self.name, answer)
        return answer["data"]

    def cursors(self, end):
        """Reads the first `end` customers of the first operator in pages of 100, and returns the end cursor of each page."""
        cursors, read = [], 0
        while read < end:
            first = min(100, end - read)
            page = self.ask("r3", first=first, after=cursors[-1] if cursors else None)["operator"]["customers"]
            cursors.append(page["pageInfo"]["endCursor"])
            read += first
        return cursors

    def has_feed(self):
        """Earlier builds of the service have no change feed."""
        fields = self.send("f1", {"query": "{ __type(name: \"Query\") { fields { name } } }"})["__type"]["fields"]
        return {"name": "changes"} in fields

    def end_of_feed(self):
        return self.send("f1", {"query": "{ viewer { changesCursor } }"})["viewer"]["changesCursor"]

    def statements(self):
        """The number of statements of the last request, from the log of the service."""
        if not self.is_vivamo:
            return None
        while True:  # the service writes the line after the response
            for line in self.log.read_text().splitlines():
                if f"request_id={self.request_id} " in line:
                    return int(line.split("statements=")[1].split()[0])
            time.sleep(0.01)

    def prepare(self, operation):
        """Writes the file that load.lua reads: the request in the first line, and a value for it in each further line."""
        half, end = self.customers // 2, min(self.customers // 4, 50_000)
        # Customers with odd numbers belong to the first operator. Multiplying by a prime scatters the numbers.
        scattered = [i * 1_000_003 % half * 2 + 1 for i in range(min(half, 200_000))]
        ids = lambda *last_digits: lambda: (self.customer(n) for n in scattered if n % 10 in last_digits)
        # The updates leave out one of seven customers, so that s3 and s5 find customers by the names of the seed. The names
        # are about as many as those of s1 and s2, so that their rows are in memory after the warm-up round.
        changed = lambda *last_digits: lambda: (self.customer(n) for n in scattered if n % 10 in last_digits and n % 7)
        named = lambda: [f"first{n % 997} last{n % 1999}" for n in scattered if n % 7 == 0][:2_000]
        # The last digit of a customer's number tells how many operators the customer has.
        values = {"r1": ids(*range(10)), "w2": changed(*range(10)), "u1": changed(3, 9), "u2": changed(1, 7), "f1": lambda: [self.end_of_feed()],
                  "r2": lambda: (f"ext-1-{n}" for n in scattered), "r3d": lambda: self.cursors(end)[end // 200:],
                  **dict.fromkeys(("s1", "s2"), lambda: (f"last{n}" for n in range(200, 1999))),
                  **dict.fromkeys(("s3", "s5"), named),
                  "s4": lambda: (f"last{n % 1999} {2_000_000_000 + n}" for n in scattered)}.get(operation, lambda: [""])()
        (self.folder / f"{self.name}.{operation}").write_text("\n".join([self.request(operation), *values]))

    def check(self, operation):
        """Checks that a response has the values of the database."""
        n, number, deep = {"u1": 53, "u2": 47, "f1": 59}.get(operation, 43), "999999999", min(self.customers // 8, 25_000)
        # Fills the caches of keys and operators, so that their statements are not counted.
        self.ask("r3" if operation == "r3" else "r1", self.customer(n))
        value = {"r2": f"ext-1-{n}", "r3d": self.cursors(deep)[-1] if operation == "r3d" else "", "s1": "last343", "s2": "last343",
                 **dict.fromkeys(("s3", "s5"), "first343 last343"), "s4": "last343 2000000343"}
        if operation == "f1":
            value["f1"] = self.end_of_feed()
            self.ask("w2", self.customer(n), number)
        data = self.ask(operation, value.get(operation, self.customer(n)), number)
        sql = lambda text: self.database.sql(self.database_name, text)
        is_first_operator = "operator_id = (SELECT id FROM operator WHERE name = 'Operator 1')"
        if operation in ("r3", "r3d"):
            page = data["operator"]["customers"]
            got = [[edge["node"]["email"], link["externalCustomerId"], link["node"]["name"]]
                   for edge in page["edges"] for link in edge["node"]["operators"]["edges"]]
            expected = sql(f"""SELECT email, link.external_customer_id, operator.name
                FROM (SELECT customer_id, connected_at FROM customer_operator WHERE {is_first_operator}
                      ORDER BY connected_at, customer_id LIMIT 50 OFFSET {deep if operation == "r3d" else 0}) AS page
                JOIN customer ON customer.id = page.customer_id
                JOIN customer_operator AS link ON link.customer_id = customer.id
                JOIN operator ON operator.id = link.operator_id
                ORDER BY page.connected_at, page.customer_id, link.connected_at, link.operator_id""")
            assert page["pageInfo"]["hasNextPage"]
        elif operation in SEARCHES:
            limit = {"s1": 20, "s2": 2, "s3": 2, "s4": 1, "s5": 20}[operation]
            first_name = "AND first_name = 'First343'" if operation in ("s3", "s5") else ""
            got = [[edge["node"]["email"]] for edge in data["customers"]["edges"]]
            expected = sql(f"""SELECT email FROM customer JOIN customer_operator ON customer_id = customer.id
                WHERE last_name = 'Last343' {first_name} AND {is_first_operator} ORDER BY customer.id LIMIT {limit}""")
        elif operation == "f1":
            got = [[change["externalCustomerId"], str(change["version"])] for change in data["changes"]["changes"]]
            expected = sql(f"""SELECT external_customer_id, version FROM customer JOIN customer_operator ON customer_id = customer.id
                WHERE email = 'person{n}@example.com' AND {is_first_operator}""")
            assert not self.ask(operation, data["changes"]["cursor"])["changes"]["changes"]
        else:
            customer = data["customer"] if "customer" in data else next(iter(data.values()))["customer"]
            got = [[str(customer[field]) for field in ("email", "phone", "firstName", "lastName", "version")]]
            email = f"new{number}@example.com" if operation == "w1" else f"person{n}@example.com"
            expected = sql(f"SELECT email, phone, first_name, last_name, version FROM customer WHERE email = '{email}'")
            if operation not in ("r1", "r2"):
                assert (got[0][2], got[0][4]) == (("New", "1") if operation == "w1" else (f"New {number}", "2"))
        assert got == expected and got, (self.name, operation, got, expected)

    def written_rows(self):
        """Creates, connects and updates customers. Returns the number of rows that were added to each table, and the rows of
        these customers without ids, times and positions in the feed."""
        sql = lambda text: self.database.sql(self.database_name, text)
        columns = {}
        for table, column, kind in sql("SELECT table_name, column_name, data_type FROM information_schema.columns "
                                       "WHERE table_schema = 'public' ORDER BY table_name, column_name"):
            columns.setdefault(table, {})[column] = f"row.{column} IS NULL" if kind.startswith("timestamp") else f"row.{column}"
        counts = lambda: {table: int(sql(f"SELECT count(*) FROM {table}")[0][0]) for table in columns}
        before = counts()
        # Even numbers belong to other operators.
        sql("UPDATE customer SET phone = NULL, first_name = NULL WHERE email = 'person46@example.com'")
        sql("UPDATE customer SET email_verified_at = now() WHERE email IN ('person44@example.com', 'person45@example.com')")
        self.ask("w1", number="999999998")
        for n in (44, 46):
            self.ask("w1", input={"externalCustomerId": f"2026-00{n}", "data": {
                "email": f"person{n}@example.com", "phone": f"+44207183{n}{n}", "firstName": "Zoë", "lastName": "Smith-Jones"}})
        for name in ("New 1", "Ada Bea Cora Dora Edda Fay Gwen Hope Iris Jane Kate Lena Mary", "Éva", "Éva"):
            self.ask("w2", self.customer(45), firstName=name)
        of_these = "('new999999998@example.com', 'person44@example.com', 'person45@example.com', 'person46@example.com')"
        rows = {}
        for table, selected in columns.items():
            key = "id" if table == "customer" else "customer_id"
            if key in selected:
                compared = ", ".join(text for column, text in selected.items() if column not in UNIQUE_COLUMNS)
                rows[table] = sorted(sql(f"SELECT person.email, {compared} FROM {table} AS row JOIN customer AS person "
                                         f"ON person.id = row.{key} WHERE person.email IN {of_these}"))
        return {table: count - before[table] for table, count in counts().items()}, rows


def program(name, path):
    """The command that starts a target. Targets without a path are built first."""
    if path:
        return [path]
    if name in ("vivamo", "vivamo-sqlite") or name.removeprefix("vivamo-").isdigit():
        return [VIVAMO]
    if name not in PEERS:
        sys.exit(f"unknown target {name}: use vivamo, vivamo-sqlite, {', '.join(PEERS)}, or NAME=PROGRAM")
    folder = HERE / "peers" / PEERS[name][0]
    if folder.name == "bare":
        run("cargo", "build", "--release", "--locked", "--manifest-path", folder / "Cargo.toml", "--target-dir", TARGET / "bare")
        return [TARGET / "bare/release/bare"]
    if folder.name == "postgraphile" and int(run("node", "--version").strip("v").split(".")[0]) < 22:
        sys.exit("postgraphile needs Node 22 or newer: put it first on the PATH, or leave postgraphile out of --targets")
    run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", folder)
    return ["node", folder / "server.js"]


def processor_name():
    lines = pathlib.Path("/proc/cpuinfo").read_text().split("\n")
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


def processor_seconds(process):
    """Processor seconds of a process with its threads, and of its children that have ended."""
    try:
        times = pathlib.Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[11:15]
    except FileNotFoundError:  # the process has ended, so its parent counts its time
        return 0, 0
    user, system, *ended = (int(time) / os.sysconf("SC_CLK_TCK") for time in times)
    return user + system, sum(ended)


def machine_processor_seconds():
    """Processor seconds of the whole machine, without idle time and time spent waiting for I/O."""
    times = pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:9]
    return sum(int(time) for place, time in enumerate(times) if place not in (3, 4)) / os.sysconf("SC_CLK_TCK")


def measure(server, operation, seconds, connections, number):
    def sample():
        load = resource.getrusage(resource.RUSAGE_CHILDREN)
        return (processor_seconds(server.process.pid)[0], server.database.processor_seconds(), load.ru_utime + load.ru_stime,
                machine_processor_seconds(), time.monotonic())

    before = sample()
    printed = run("wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", HERE / "load.lua", server.url, env={
        "REQUEST": str(server.folder / f"{server.name}.{operation}"), "FIRST": str(number * 1_000_000),
        "KEYS": "\n".join(server.keys_for(operation, connections)), "EXPECTED": OPERATIONS[operation][2],
        "CONNECTIONS": str(connections), "PATH": os.environ["PATH"]})
    of_server, of_postgres, of_load, of_machine, elapsed = (now - then for now, then in zip(sample(), before))
    figures, example = printed.split("FIGURES ")[1].split("\nEXAMPLE ")
    figures = json.loads(figures)
    if figures["errors"]:
        print(f"{server.name}, {operation}, {connections} clients: {figures['errors']} errors, for example {example}")
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    # With many clients, a slow target may answer none of its requests in time.
    requests = figures["requests"] or math.nan
    return {
        "req/s": figures["requests"] / figures["microseconds"] * 1e6, "p50 ms": figures["p50"] / 1e3, "p99 ms": figures["p99"] / 1e3,
        "server µs": of_server / requests * 1e6, "PostgreSQL µs": of_postgres / requests * 1e6,
        "RSS MiB": int(status.split("VmRSS:")[1].split()[0]) / 1024,
        "other load %": 100 * max(0, of_machine - of_server - of_postgres - of_load) / elapsed / os.cpu_count(),
        "errors": figures["errors"]}


def wait_until_idle(server):
    """Waits until the server has finished all requests of a measurement, but at most 30 seconds."""
    work = lambda: processor_seconds(server.process.pid)[0] + server.database.processor_seconds()
    before, deadline = work(), time.monotonic() + 30
    while time.monotonic() < deadline:
        time.sleep(0.1)
        if (now := work()) - before < 0.02:
            return
        before = now


def main(options, folder, running):
    global VIVAMO
    if options.program:
        VIVAMO = pathlib.Path(options.program)
    else:
        run("cargo", "build", "--locked", "--profile", "dist", "--bin", "vivamo", cwd=ROOT)
    operations, sizes = options.operations.split(","), [int(size) for size in options.customers.split(",")]
    clients = [int(number) for number in options.connections.split(",")]
    # Each connection is an open file, both in wrk and in the server.
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    targets = options.targets.split(",") if len(sizes) == 1 else [f"vivamo-{size}" for size in sizes]
    programs = {name: program(name, path) for name, _, path in (target.partition("=") for target in targets)}
    databases = {"postgres": Postgres(folder)}
    running.append(databases["postgres"])
    if any("sqlite" in target for target in programs):
        databases["sqlite"] = Sqlite(folder)
    seeds, seed_of = {}, {}
    for number, (target, command) in enumerate(programs.items()):
        kind, size = "sqlite" if target.endswith("sqlite") else "postgres", sizes[number] if len(sizes) > 1 else sizes[0]
        # Each build of the service has migrations of its own. The peers use the tables of the measured build.
        seed = kind, size, command[0] if target.startswith("vivamo") else VIVAMO
        if seed not in seeds:
            print(f"Creating {size} customers …", flush=True)
            name = f"seed-{len(seeds)}"
            seeds[seed] = name, fill(databases[kind], name, size, keys_for(max(clients)), seed[-1])
        seed_of[target] = kind, size, *seeds[seed]
    about = {"date": time.strftime("%Y-%m-%d"), "processors": f"{os.cpu_count()} × {processor_name()}", "system": platform.release(),
             "PostgreSQL": databases["postgres"].sql("postgres", "SHOW server_version")[0][0],
             "Node": run("node", "--version").strip() if shutil.which("node") else None}
    results, servers, rows_of_service = {"settings": vars(options) | about, "targets": {}, "rows": []}, [], None
    for target, command in programs.items():
        kind, size, database_name, keys = seed_of[target]
        if len(sizes) == 1:
            databases[kind].copy(database_name, target)
            database_name = target
        server = Server(target, command, databases[kind], database_name, size, keys, folder)
        running.append(server)
        servers.append(server)
        statements = {}
        for operation in filter(server.supports, operations):
            server.check(operation)
            statements[operation] = server.statements()
            server.prepare(operation)
        if len(sizes) == 1 and kind == "postgres" and {"w1", "w2"} & set(operations):
            if server.is_vivamo:
                rows_of_service = rows_of_service or server.written_rows()
            elif target.endswith("same-work"):
                if rows_of_service is None:
                    sys.exit(f"{target} is compared with the service: put vivamo first in --targets")
                written = server.written_rows()
                assert written == rows_of_service, f"{target} writes other rows than the service: {written} instead of {rows_of_service}"
        results["targets"][target] = {"startup ms": server.startup_ms, "SQL": statements}
        print(f"The answers of {target} agree with the database.", flush=True)
    databases["postgres"].sql("postgres", "CHECKPOINT")
    each = len(clients) * sum(len(about["SQL"]) for about in results["targets"].values())
    minutes = each * (0.5 + options.warm_up + options.rounds * (options.seconds + 0.4)) / 60
    print(f"{options.rounds + 1} rounds of {each} measurements take about {minutes:.0f} minutes, or longer with many clients.", flush=True)
    number, rates = 0, {}
    for round in range(options.rounds + 1):  # round 0 warms up and is not reported
        for connections in clients:
            for operation in operations:
                number += 1
                # Each round begins with another target, because the first target has a disadvantage: the processor
                # caches are full of data of another operation.
                first = round % len(servers)
                for server in servers[first:] + servers[:first]:
                    if operation not in results["targets"][server.name]["SQL"]:
                        continue
                    if operation == "f1":
                        server.prepare(operation)  # the other operations have added changes
                    # If there are many clients, a measurement takes longer, up to 60 seconds, so that each client gets
                    # several responses. The rate of the previous round shows how long this takes.
                    several = 4 * connections / (rates.get((server.name, operation, connections)) or 1)
                    seconds = max(options.seconds, min(math.ceil(several), 60)) if round else options.warm_up + connections // 250
                    figures = measure(server, operation, seconds, connections, number)
                    wait_until_idle(server)
                    rates[server.name, operation, connections] = figures["req/s"]
                    if round:
                        results["rows"].append(
                            {"target": server.name, "operation": operation, "connections": connections, "round": round, **figures})
        print(f"round {round} of {options.rounds}", flush=True)
    report.write(results, json.loads(pathlib.Path(options.compare).read_text()) if options.compare else None)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(results, indent=1))
    if options.plot:
        pathlib.Path(options.plot).write_text(report.drawing(results))
    sys.exit(any(row["errors"] for row in results["rows"]))


def start(main, options):
    """Runs `main` with a temporary folder and an empty list of running processes, and stops the processes at the end."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)  # the user postgres must reach its data in this folder
        running = []
        try:
            main(options, pathlib.Path(name), running)
        finally:
            for process in reversed(running):
                process.stop()


if __name__ == "__main__":
    start(main, arguments.parse_args())
