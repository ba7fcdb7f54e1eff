-- Counters of throttles that replicas share: when each will have run down, in nanoseconds since 1970. Ids are digests.

CREATE TABLE throttles (
    id TEXT NOT NULL PRIMARY KEY,
    arrival_ns BIGINT NOT NULL
);
CREATE INDEX throttles_arrival ON throttles (arrival_ns);
