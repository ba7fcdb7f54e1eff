-- Whose a state is, as a digest: one person's are counted.

ALTER TABLE states ADD COLUMN owner TEXT NOT NULL DEFAULT '';
CREATE INDEX states_owner ON states (owner);
