-- What a database that grew for years may hold: odd names, keys of all sorts, partitions, inheritance, own types.
CREATE SCHEMA sales;
CREATE SCHEMA "Odd Schema";
CREATE SCHEMA types;
CREATE TYPE types.state AS ENUM ('new', 'paid');
CREATE TYPE money_amount AS (amount numeric, currency text);
CREATE DOMAIN types.code AS text CHECK (VALUE <> '');
CREATE DOMAIN types.state_again AS types.state;

-- Names
CREATE TABLE "order" (id int PRIMARY KEY, "select" text, "from" text);
CREATE TABLE "Orders" (id int PRIMARY KEY, "CamelCase" text);
CREATE TABLE orders (id int PRIMARY KEY, note text);
CREATE TABLE sales.orders (id int PRIMARY KEY, note text);
CREATE TABLE "Order Lines" ("order" int, "line no." int, qty int, PRIMARY KEY ("order", "line no."));
CREATE TABLE "say ""hello""" (id int PRIMARY KEY, "a ""quoted"" column" text);
CREATE TABLE "Zürich größen" (id int PRIMARY KEY, "größe" text);
CREATE TABLE "заказы" ("номер" int PRIMARY KEY, "сумма" numeric);
CREATE TABLE "клиенты" ("номер" int PRIMARY KEY);
CREATE TABLE "Odd Schema"."1st.table" (id int PRIMARY KEY, "a.b" text);
CREATE TABLE "two
lines" (id int PRIMARY KEY, "tab	here" text, U&"\0007bell" text);
CREATE TABLE "back\slash" (id int PRIMARY KEY, "\n" text);
CREATE TABLE "# no comment" (id int PRIMARY KEY, "[events.x]" text);
CREATE TABLE status (id int PRIMARY KEY, v text);
CREATE TABLE meta (id int PRIMARY KEY, v text);
CREATE TABLE requests (id int PRIMARY KEY, v text);
CREATE TABLE "user" (id int PRIMARY KEY, name text, email text, plan text);
CREATE TABLE a123456789012345678901234567890123456789012345678901234567890bc (id int PRIMARY KEY, v text);
CREATE TABLE a123456789012345678901234567890123456789012345678901234567890bd (id int PRIMARY KEY, v text);
CREATE TABLE starred (id int PRIMARY KEY, "*" text, v text);

-- Keys
CREATE TABLE keyed_by_text (code types.code PRIMARY KEY, v text);
CREATE TABLE keyed_by_enum (state types.state, again types.state_again, at timestamptz, PRIMARY KEY (state, again, at));
CREATE TABLE keyed_by_email (email text PRIMARY KEY, v text);
CREATE TABLE keyed_by_index (id int NOT NULL, v text);
CREATE UNIQUE INDEX keyed_by_index_id ON keyed_by_index (id);
ALTER TABLE keyed_by_index REPLICA IDENTITY USING INDEX keyed_by_index_id;
CREATE TABLE identity_elsewhere (id int PRIMARY KEY, code text NOT NULL UNIQUE);
ALTER TABLE identity_elsewhere REPLICA IDENTITY USING INDEX identity_elsewhere_code_key;
CREATE TABLE whole_rows (id int PRIMARY KEY, v text);
ALTER TABLE whole_rows REPLICA IDENTITY FULL;
CREATE TABLE unique_in_whole_rows (id int NOT NULL UNIQUE, v text);
ALTER TABLE unique_in_whole_rows REPLICA IDENTITY FULL;

-- Without a usable key, each with the SQL that mends it
CREATE TABLE history (at timestamptz, what text);
CREATE TABLE "history with id" (id int, id_2 text);
CREATE TABLE later_checked (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v text);
CREATE TABLE without_identity (id int PRIMARY KEY, v text);
ALTER TABLE without_identity REPLICA IDENTITY NOTHING;
CREATE TABLE unique_only (id int UNIQUE, v text);
CREATE TABLE unique_and_whole_rows (id int UNIQUE, v text);
ALTER TABLE unique_and_whole_rows REPLICA IDENTITY FULL;
CREATE TABLE index_gone (id int NOT NULL UNIQUE, v text);
ALTER TABLE index_gone REPLICA IDENTITY USING INDEX index_gone_id_key;
ALTER TABLE index_gone DROP CONSTRAINT index_gone_id_key;
CREATE TABLE unique_parts (id int UNIQUE, v text) PARTITION BY LIST (id);
CREATE TABLE unique_parts_1 PARTITION OF unique_parts FOR VALUES IN (1);
CREATE TABLE nothing_and_no_key (v text);
ALTER TABLE nothing_and_no_key REPLICA IDENTITY NOTHING;
CREATE TABLE whole_rows_without_key (v text);
ALTER TABLE whole_rows_without_key REPLICA IDENTITY FULL;
CREATE TABLE no_columns ();
CREATE TABLE keyless_parts (at date NOT NULL, v text) PARTITION BY RANGE (at);
CREATE TABLE keyless_parts_1 PARTITION OF keyless_parts FOR VALUES FROM ('2020-01-01') TO ('2030-01-01');
CREATE TABLE leafless (id int PRIMARY KEY, v text) PARTITION BY LIST (id);
CREATE TABLE "leafless 1" PARTITION OF leafless FOR VALUES IN (1);
ALTER TABLE "leafless 1" REPLICA IDENTITY NOTHING;

-- Kinds
CREATE TABLE measurements (at timestamptz, sensor int, value float8, PRIMARY KEY (sensor, at)) PARTITION BY RANGE (at);
CREATE TABLE measurements_old PARTITION OF measurements FOR VALUES FROM (MINVALUE) TO ('2026-01-01');
CREATE TABLE measurements_new PARTITION OF measurements FOR VALUES FROM ('2026-01-01') TO (MAXVALUE)
    PARTITION BY LIST (sensor);
CREATE TABLE measurements_new_rest PARTITION OF measurements_new DEFAULT;
CREATE TABLE animals (id int PRIMARY KEY, kind text);
CREATE TABLE dogs (breed text, PRIMARY KEY (id)) INHERITS (animals);
CREATE TABLE "calculated" (id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED);
CREATE UNLOGGED TABLE cache (id int PRIMARY KEY, v text);
CREATE VIEW all_orders AS SELECT * FROM orders;
CREATE MATERIALIZED VIEW orders_then AS SELECT * FROM orders;
CREATE TABLE guarded (id int PRIMARY KEY, v text);
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
CREATE TABLE every_type (
    id uuid PRIMARY KEY, n numeric(12, 3), f float8, b boolean, j jsonb, js json, ts timestamptz, d date, iv interval,
    by bytea, i4 int4range, ta text[], st types.state, sts types.state[], am money_amount, co types.code, x xml, m money,
    bits bit varying(5), search tsvector, net cidr
);
CREATE TABLE large_values (id int PRIMARY KEY, body text);
ALTER TABLE large_values ALTER COLUMN body SET STORAGE EXTERNAL;

INSERT INTO "order" SELECT i, 'a', 'b' FROM generate_series(1, 3) AS i;
INSERT INTO "Orders" VALUES (1, 'x');
INSERT INTO orders VALUES (1, 'x'), (2, NULL);
INSERT INTO sales.orders VALUES (1, 'x');
INSERT INTO "Order Lines" VALUES (1, 1, 5), (1, 2, 6);
INSERT INTO "say ""hello""" VALUES (1, 'x');
INSERT INTO "Zürich größen" VALUES (1, 'XL');
INSERT INTO "заказы" VALUES (1, 9.90);
INSERT INTO "two
lines" VALUES (1, 'x', 'y');
INSERT INTO "back\slash" VALUES (1, 'x');
INSERT INTO "# no comment" VALUES (1, 'x');
INSERT INTO "user" VALUES (1, 'Ada', 'ada@example.org', 'free');
INSERT INTO starred VALUES (1, 'x', 'y');
INSERT INTO keyed_by_text VALUES ('a', 'x'), ('b', 'y');
INSERT INTO keyed_by_enum VALUES ('new', 'paid', '2026-01-01'), ('paid', 'new', '2026-01-01');
INSERT INTO keyed_by_email VALUES ('ada@example.org', 'x');
INSERT INTO keyed_by_index VALUES (1, 'x');
INSERT INTO identity_elsewhere VALUES (1, 'x');
INSERT INTO unique_in_whole_rows VALUES (1, 'x');
INSERT INTO measurements VALUES ('2020-01-01', 1, 0.5), ('2026-06-01', 1, 0.25);
INSERT INTO animals VALUES (1, 'cat');
INSERT INTO dogs VALUES (1, 'dog', 'pug');
INSERT INTO "calculated" VALUES (1, 21);
INSERT INTO guarded VALUES (1, 'x');
INSERT INTO every_type VALUES (
    '00000000-0000-0000-0000-000000000001', 1.5, 'NaN', true, '{"a": 1}', '{"a":1}', 'infinity', '2026-01-01', '1 day',
    '\x00ff', '[1,5)', '{a,NULL}', 'new', '{new,paid}', '(1,EUR)', 'c', NULL, '1.00', B'101', 'a b', '10.0.0.0/8'
);
INSERT INTO large_values VALUES (1, repeat('x', 10000));
