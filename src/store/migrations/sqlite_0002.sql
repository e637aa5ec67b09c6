-- Commits of this replica whose first event has a smaller key store nothing: one whose
-- answer was lost is over, even if it reaches the database later.
ALTER TABLE replica ADD COLUMN commit_floor INTEGER NOT NULL DEFAULT 0;
