-- Every revocation and its end, in order and without gaps. Rows are only ever added.

CREATE TABLE revocations (
    number BIGINT NOT NULL PRIMARY KEY,
    environment TEXT NOT NULL,
    key_id TEXT NOT NULL,
    sealed TEXT NOT NULL,
    created_ms BIGINT NOT NULL
);
