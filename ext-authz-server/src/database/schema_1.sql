-- Keyward's state. Every statement runs on SQLite and on PostgreSQL as it is: times are milliseconds since 1970, sealed
-- values and wrapped keys are base64url text.

CREATE TABLE data_keys (
    id TEXT NOT NULL PRIMARY KEY,
    scope TEXT NOT NULL,
    generation BIGINT NOT NULL,
    wrapping TEXT NOT NULL,
    wrapped TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    UNIQUE (scope, generation)
);

CREATE TABLE grants (
    tenant TEXT NOT NULL,
    principal TEXT NOT NULL,
    provider TEXT NOT NULL,
    version BIGINT NOT NULL,
    key_id TEXT NOT NULL,
    sealed TEXT NOT NULL,
    changed_ms BIGINT NOT NULL,
    expires_ms BIGINT,
    PRIMARY KEY (tenant, principal, provider)
);

CREATE TABLE secrets (
    path TEXT NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    key_id TEXT NOT NULL,
    sealed TEXT NOT NULL,
    changed_ms BIGINT NOT NULL
);

CREATE TABLE states (
    id TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    key_id TEXT NOT NULL,
    sealed TEXT NOT NULL,
    expires_ms BIGINT NOT NULL
);
CREATE INDEX states_expire ON states (expires_ms);

CREATE TABLE used (
    id TEXT NOT NULL PRIMARY KEY,
    expires_ms BIGINT NOT NULL
);
CREATE INDEX used_expire ON used (expires_ms);

CREATE TABLE material (
    id TEXT NOT NULL PRIMARY KEY,
    topic TEXT NOT NULL,
    key_id TEXT NOT NULL,
    sealed TEXT NOT NULL,
    expires_ms BIGINT NOT NULL
);
CREATE INDEX material_topic ON material (topic);
CREATE INDEX material_expire ON material (expires_ms);

CREATE TABLE leases (
    id TEXT NOT NULL PRIMARY KEY,
    holder TEXT NOT NULL,
    expires_ms BIGINT NOT NULL
);

CREATE TABLE invalidations (
    number BIGINT NOT NULL PRIMARY KEY,
    topic TEXT NOT NULL,
    created_ms BIGINT NOT NULL
);

CREATE TABLE counters (
    name TEXT NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES ('invalidations', 0);
