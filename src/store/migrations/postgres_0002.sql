-- Commits of this replica whose first event has a smaller key store nothing: one whose
-- answer was lost is over, even if it reaches the server later.
ALTER TABLE replica ADD COLUMN commit_floor int8 NOT NULL DEFAULT 0;
