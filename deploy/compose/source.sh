#!/bin/bash
# Runs once, in an empty source: two tables of a shop, and the role and publication that the README asks for.
set -euo pipefail
psql --set ON_ERROR_STOP=1 --set password="$(cat /run/secrets/reader_password)" \
    --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
CREATE TABLE customers (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, name text NOT NULL, email text);
CREATE TABLE orders (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    customer_id bigint NOT NULL REFERENCES customers,
    total numeric(12, 2) NOT NULL,
    state text NOT NULL DEFAULT 'new'
);
INSERT INTO customers (name, email) SELECT 'Customer ' || n, 'c' || n || '@example.com' FROM generate_series(1, 1000) n;
INSERT INTO orders (customer_id, total) SELECT n % 1000 + 1, n FROM generate_series(1, 5000) n;
CREATE ROLE cdc_reader LOGIN REPLICATION PASSWORD :'password';
GRANT USAGE ON SCHEMA public TO cdc_reader;
GRANT SELECT (id, name, email) ON customers TO cdc_reader;
GRANT SELECT (id, customer_id, total, state) ON orders TO cdc_reader;
CREATE PUBLICATION cdc_shop FOR TABLE customers, orders
    WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true);
SQL
