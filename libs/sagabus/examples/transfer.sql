CREATE TABLE IF NOT EXISTS account (id bigint PRIMARY KEY, balance bigint NOT NULL CHECK (balance >= 0));
CREATE TABLE IF NOT EXISTS credited (transfer bigint PRIMARY KEY);
CREATE SEQUENCE IF NOT EXISTS transfer;
INSERT INTO account VALUES (1, 100), (2, 0) ON CONFLICT (id) DO UPDATE SET balance = excluded.balance;
