-- Every step in the lifecycle of a binding, the ages of secrets, and whose a state is.
--
-- Steps are only ever added; the newest one says where the binding stands.

CREATE TABLE binding_history (
    environment TEXT NOT NULL,
    id TEXT NOT NULL,
    version BIGINT NOT NULL,
    key_id TEXT NOT NULL,
    sealed TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    PRIMARY KEY (environment, id, version)
);

-- Since when a stored secret has the value that it has, for stores that do not say.
CREATE TABLE secret_ages (
    environment TEXT NOT NULL,
    reference TEXT NOT NULL,
    key_id TEXT NOT NULL,
    sealed TEXT NOT NULL,
    changed_ms BIGINT NOT NULL,
    PRIMARY KEY (environment, reference)
);

-- Whose a state is, as a digest: one person's are counted.

ALTER TABLE states ADD COLUMN owner TEXT NOT NULL DEFAULT '';
CREATE INDEX states_owner ON states (owner);
