-- Whether an attempt failed by a fault of this side: of a machine of ours or its name
-- servers. It says nothing of the receiver. The release before does not say so.
ALTER TABLE attempt ADD COLUMN ours INTEGER NOT NULL DEFAULT 0;
