-- Creates {customers} customers and 20 operators. The ids, the email and the external ids of a customer contain its number
-- n. Customers with odd numbers belong to the first operator. Each customer has 1 to 3 operators. Both databases run this
-- file: PostgreSQL first gets the SQLite functions that it lacks.
CREATE TEMPORARY TABLE number AS
WITH RECURSIVE counted (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < {customers})
SELECT n, unhex('018' || substr(cast(1000000000 + n AS text), 2) || '70008000000000000000') AS id FROM counted;

INSERT INTO operator (id, name, created_at)
SELECT id, 'Operator ' || n, strftime('%Y-%m-%dT%H:%M:%S+00:00', 1700000000 + n, 'unixepoch') FROM number WHERE n <= 20;

INSERT INTO customer (id, email, phone, first_name, last_name, address, version, created_at, updated_at)
SELECT id, 'person' || n || '@example.com', '+1' || (2000000000 + n), 'First' || (n % 997), 'Last' || (n % 1999),
       json('{"line1":"' || (n % 150) || ' Main Street","line2":null,"city":"City ' || (n % 300)
            || '","region":null,"postal_code":"' || (10000 + n % 90000) || '","country":"US"}'),
       1, strftime('%Y-%m-%dT%H:%M:%S+00:00', 1700000000 + n, 'unixepoch'),
       strftime('%Y-%m-%dT%H:%M:%S+00:00', 1700000000 + n, 'unixepoch')
FROM number;

CREATE TEMPORARY TABLE link AS
SELECT n, nth, operator.id AS operator_id, number.id AS customer_id, substr(operator.name, 10) AS operator
FROM number
CROSS JOIN (SELECT 0 AS nth UNION ALL SELECT 1 UNION ALL SELECT 2) AS links
JOIN operator ON operator.name = 'Operator ' || CASE WHEN nth = 0 AND n % 2 = 1 THEN 1 ELSE 2 + (n + 5 * nth) % 19 END
WHERE nth = 0 OR nth = 1 AND n % 5 < 3 OR nth = 2 AND n % 5 = 0
ORDER BY n, nth;

INSERT INTO customer_operator (operator_id, customer_id, external_customer_id, connected_at)
SELECT operator_id, customer_id, 'ext-' || operator || '-' || n,
       strftime('%Y-%m-%dT%H:%M:%S+00:00', 1700000000 + n + nth * 86400, 'unixepoch')
FROM link;

-- The search words, as the service writes them.
INSERT INTO customer_word (operator_id, customer_id, place, word)
SELECT operator_id, customer_id, place, CASE place
         WHEN -1000 THEN 'ext' WHEN -999 THEN operator || n WHEN -998 THEN cast(n AS text)
         WHEN 0 THEN 'person' || n WHEN 1000 THEN 'example' WHEN 1001 THEN 'com'
         WHEN 2000 THEN 'first' || (n % 997) WHEN 3000 THEN 'last' || (n % 1999)
         WHEN 4000 THEN '1' || (2000000000 + n) WHEN 4001 THEN cast(2000000000 + n AS text)
         WHEN 5000 THEN '&first' || (n % 997) || ' last' || (n % 1999)
         ELSE '#' || substr(cast(10000 + n % 10000 AS text), 2)
       END
FROM link
CROSS JOIN (SELECT -1000 AS place UNION ALL SELECT -999 UNION ALL SELECT -998 UNION ALL SELECT 0 UNION ALL SELECT 1000 UNION ALL SELECT 1001
            UNION ALL SELECT 2000 UNION ALL SELECT 3000 UNION ALL SELECT 4000 UNION ALL SELECT 4001 UNION ALL SELECT 4002 UNION ALL SELECT 5000)
  AS places;

DROP TABLE link;
DROP TABLE number;
