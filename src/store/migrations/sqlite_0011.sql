-- Whether the receiver is told nothing of traces: no traceparent and no tracestate is sent.
-- The release before knows no such subscription and sends both.
ALTER TABLE subscription ADD COLUMN omit_trace_context INTEGER NOT NULL DEFAULT 0;
