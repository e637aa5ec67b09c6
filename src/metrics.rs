//! What is counted and timed. Labels are closed sets, never ids or text of callers.
