//! Reads the publisher's W3C trace context. What is not valid is dropped, as the
//! standard asks (<https://www.w3.org/TR/trace-context/>, 3.2 and 3.3): tracing never
//! makes a call fail.

use super::event::TraceContext;

const TRACEPARENT_BYTES: usize = 55;
const TRACESTATE_BYTES_MAX: usize = 512;

/// The context in these two headers; empty without a valid `traceparent`. One of a later
/// version is read as far as version 00 goes, and written so.
#[must_use]
pub fn parse_trace_context(traceparent: &str, tracestate: &str) -> TraceContext {
    let Some(traceparent) = parse_traceparent(traceparent) else {
        return TraceContext::default();
    };
    let tracestate = if is_tracestate(tracestate) { tracestate } else { "" };
    TraceContext { traceparent, tracestate: tracestate.to_owned() }
}

fn parse_traceparent(text: &str) -> Option<String> {
    let (known, rest) = text.split_at_checked(TRACEPARENT_BYTES)?;
    let parts: Vec<&str> = known.split('-').collect();
    let &[version, trace, span, flags] = parts.as_slice() else { return None };
    let hex = |text: &str, digits: usize| {
        text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let not_zero = |text: &str| text.bytes().any(|b| b != b'0');
    let well_formed = hex(version, 2)
        && version != "ff"
        && hex(trace, 32)
        && not_zero(trace)
        && hex(span, 16)
        && not_zero(span)
        && hex(flags, 2);
    let ends = rest.is_empty() || (version != "00" && rest.starts_with('-'));
    (well_formed && ends).then(|| format!("00-{trace}-{span}-{flags}"))
}

fn is_tracestate(text: &str) -> bool {
    let member = |text: &str| {
        let text = text.trim_matches([' ', '\t']);
        text.is_empty()
            || text.split_once('=').is_some_and(|(key, value)| !key.is_empty() && !value.is_empty())
    };
    text.len() <= TRACESTATE_BYTES_MAX
        && text.bytes().all(|b| (0x20..=0x7e).contains(&b) || b == b'\t')
        && text.split(',').count() <= 32
        && text.split(',').all(member)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn valid_contexts_are_kept() {
        let trace = parse_trace_context(PARENT, "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE");
        assert_eq!(trace.traceparent, PARENT);
        assert_eq!(trace.tracestate, "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE");
        let later = format!("cc{}-what-the-future-brings", &PARENT[2..]);
        assert_eq!(parse_trace_context(&later, "").traceparent, PARENT);
    }

    #[test]
    fn invalid_parents_are_dropped_with_their_state() {
        let texts = [
            String::new(),
            "00".to_owned(),
            PARENT.to_uppercase(),
            format!("{PARENT}-x"),
            format!("ff{}", &PARENT[2..]),
            format!("cc{}x", &PARENT[2..]),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01".to_owned(),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01".to_owned(),
            "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01".to_owned(),
            "é".repeat(55),
        ];
        for text in texts {
            assert_eq!(parse_trace_context(&text, "a=b"), TraceContext::default(), "{text}");
        }
    }

    #[test]
    fn an_invalid_state_is_dropped_alone() {
        for state in ["a", "a=", "=b", "a=é", "a=b\n", &format!("a={}", "x".repeat(511))] {
            let trace = parse_trace_context(PARENT, state);
            assert_eq!((&*trace.traceparent, &*trace.tracestate), (PARENT, ""), "{state}");
        }
    }
}
