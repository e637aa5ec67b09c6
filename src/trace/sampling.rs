//! Which traces are made, decided before there is a span: one that nobody will see is not
//! worth the time that it takes to make and to drop it, which on a busy service is a tenth
//! of everything.
//!
//! So it is with the samplers that follow the caller, of which the first is the default. The
//! others ask of every span by itself, as the library does it.

use std::sync::OnceLock;

use opentelemetry::trace::SpanContext;

/// A sampler, by the names and numbers of the standard
/// (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// What the caller samples is sampled, and this part of what has no caller.
    FollowsCaller(f64),
    /// The library decides for each span, by its trace's id, so that this part is sampled.
    EachSpan(f64),
}

static SAMPLING: OnceLock<Sampling> = OnceLock::new();

impl Sampling {
    /// By its name, and with the part of traces that it is to sample. No name is the standard's
    /// default.
    ///
    /// # Errors
    ///
    /// A sentence that says which names there are.
    pub fn named(name: &str, ratio: f64) -> Result<Sampling, &'static str> {
        match name.trim() {
            "" | "parentbased_always_on" => Ok(Sampling::FollowsCaller(1.0)),
            "parentbased_always_off" => Ok(Sampling::FollowsCaller(0.0)),
            "parentbased_traceidratio" => Ok(Sampling::FollowsCaller(ratio)),
            "always_on" => Ok(Sampling::EachSpan(1.0)),
            "always_off" => Ok(Sampling::EachSpan(0.0)),
            "traceidratio" => Ok(Sampling::EachSpan(ratio)),
            _ => Err("write always_on, always_off or traceidratio, or one of these after \
                      parentbased_"),
        }
    }

    /// Whether there is no span, whatever is asked.
    #[must_use]
    pub fn is_never(self) -> bool {
        self == Sampling::EachSpan(0.0)
    }

    /// From now on it is this one. The first of a process stays.
    pub fn set(self) {
        // A second one is of a test of this process.
        let _ = SAMPLING.set(self);
    }

    fn starts(self, caller: Option<&SpanContext>) -> bool {
        match (self, caller) {
            (Sampling::EachSpan(_), _) => true,
            (Sampling::FollowsCaller(_), Some(caller)) => caller.is_sampled(),
            (Sampling::FollowsCaller(ratio), None) => fastrand::f64() < ratio,
        }
    }

    fn goes_on(self, published: Option<&SpanContext>) -> bool {
        match (self, published) {
            (Sampling::EachSpan(_), _) => true,
            (Sampling::FollowsCaller(_), Some(published)) => published.is_sampled(),
            // Published while nobody exported traces, or not sampled.
            (Sampling::FollowsCaller(ratio), None) => ratio >= 1.0,
        }
    }
}

fn sampling() -> Sampling {
    SAMPLING.get().copied().unwrap_or(Sampling::FollowsCaller(1.0))
}

/// Whether there is a span for an attempt that failed, although its trace is not sampled.
pub(super) fn keeps_failures() -> bool {
    match sampling() {
        Sampling::FollowsCaller(ratio) => 0.0 < ratio,
        Sampling::EachSpan(_) => false,
    }
}

/// Whether there is a span for a call with this context of its caller.
pub(super) fn starts(caller: Option<&SpanContext>) -> bool {
    sampling().starts(caller)
}

/// Whether there is a span for an attempt of an event that was stored with this context.
pub(super) fn goes_on(published: Option<&SpanContext>) -> bool {
    sampling().goes_on(published)
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanId, TraceFlags, TraceId, TraceState};

    use super::*;

    fn context(flags: TraceFlags) -> SpanContext {
        let (trace, span) = (TraceId::from_bytes([1; 16]), SpanId::from_bytes([1; 8]));
        SpanContext::new(trace, span, flags, true, TraceState::NONE)
    }

    #[test]
    fn samplers_have_the_names_of_the_standard() {
        for (name, expected) in [
            ("parentbased_always_on", Sampling::FollowsCaller(1.0)),
            ("parentbased_always_off", Sampling::FollowsCaller(0.0)),
            ("parentbased_traceidratio", Sampling::FollowsCaller(0.01)),
            ("always_on", Sampling::EachSpan(1.0)),
            ("always_off", Sampling::EachSpan(0.0)),
            ("traceidratio", Sampling::EachSpan(0.01)),
        ] {
            assert_eq!(Sampling::named(name, 0.01), Ok(expected), "{name}");
        }
        assert!(Sampling::named("jaeger_remote", 1.0).is_err());
        let never = |name| Sampling::named(name, 0.5).expect("it is one").is_never();
        assert!(never("always_off"));
        assert!(!never("parentbased_always_off"), "callers may ask for one");
        assert!(!never("traceidratio") && !never("always_on"));
    }

    #[test]
    fn what_the_caller_samples_is_sampled_and_nothing_else_of_theirs() {
        let (yes, no) = (context(TraceFlags::SAMPLED), context(TraceFlags::default()));
        for ratio in [0.0, 0.5, 1.0] {
            let sampling = Sampling::FollowsCaller(ratio);
            assert!(sampling.starts(Some(&yes)) && sampling.goes_on(Some(&yes)));
            assert!(!sampling.starts(Some(&no)) && !sampling.goes_on(Some(&no)));
        }
        let part = |ratio| {
            let sampling = Sampling::FollowsCaller(ratio);
            (0..10_000).filter(|_| sampling.starts(None)).count()
        };
        assert_eq!((part(0.0), part(1.0)), (0, 10_000));
        assert!((800..1200).contains(&part(0.1)), "six standard deviations are 180");
        let each = Sampling::EachSpan(0.0);
        assert!(each.starts(Some(&no)) && each.goes_on(None), "the library decides");
    }
}
