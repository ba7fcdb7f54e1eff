-- Sessions of MCP: whose they are, when they were used and whether they were ended. No id that opens anything: the name of a
-- session is a digest of its sealed id.

CREATE TABLE sessions (
    id TEXT NOT NULL PRIMARY KEY,
    environment TEXT NOT NULL,
    tenant TEXT NOT NULL,
    principal TEXT NOT NULL,
    server TEXT NOT NULL,
    issued_ms BIGINT NOT NULL,
    seen_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL,
    ended_ms BIGINT
);
CREATE INDEX sessions_expire ON sessions (expires_ms);
CREATE INDEX sessions_whose ON sessions (environment, tenant, principal);
