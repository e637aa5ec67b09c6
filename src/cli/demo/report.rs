//! The demo on paper: sections, one line for each thing that happened.

use std::io;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use crate::cli::receiver::Received;
use crate::cli::terminal::Paint;
use crate::cli::terminal::visible;

use super::client::Subscribed;
use super::read_back::Status;
use super::tally::Noted;

/// Writes what happens as it happens.
#[derive(Debug)]
pub(super) struct Report<W> {
    paint: Paint,
    out: W,
}

/// Widths of columns: that of paths and that of event types.
const PATH: usize = 15;
const EVENT_TYPE: usize = 29;

impl<W: Write> Report<W> {
    pub(super) fn new(paint: Paint, out: W) -> Report<W> {
        Report { paint, out }
    }

    pub(super) fn title(&mut self) -> io::Result<()> {
        let title = self.paint.strong("Hookward demo");
        writeln!(self.out, "{title}: events in over gRPC, signed webhooks out over HTTPS\n")?;
        self.out.flush()
    }

    /// What runs, and where.
    pub(super) fn started(
        &mut self,
        service: SocketAddr,
        flags: &[String],
        receiver_url: &str,
    ) -> io::Result<()> {
        writeln!(self.out, "  receiver  {receiver_url}, certified by an authority of its own")?;
        writeln!(self.out, "  service   gRPC {service}, in this process, as if started by")?;
        writeln!(self.out, "            {}", self.paint.quiet("hookward serve \\"))?;
        for (number, flag) in flags.iter().enumerate() {
            let more = if number + 1 < flags.len() { " \\" } else { "" };
            writeln!(self.out, "              {}", self.paint.quiet(format!("{flag}{more}")))?;
        }
        self.out.flush()
    }

    pub(super) fn subscribed(&mut self, subscribed: &[Subscribed]) -> io::Result<()> {
        self.section("Subscriptions", "CreateSubscription")?;
        for Subscribed { endpoint, id, .. } in subscribed {
            let patterns = endpoint.patterns.join(", ");
            let id = self.paint.quiet(id);
            writeln!(
                self.out,
                "  {:<PATH$}  {:<14}  {id}  {patterns}",
                endpoint.path, endpoint.profile
            )?;
        }
        self.out.flush()
    }

    pub(super) fn published(
        &mut self,
        events: usize,
        deliveries: u32,
        took: Duration,
    ) -> io::Result<()> {
        self.section("Published", "PublishEvents")?;
        let took = took.as_secs_f64() * 1000.0;
        writeln!(
            self.out,
            "  {events} events in one call make {deliveries} deliveries; on disk after {took:.1} ms"
        )?;
        self.section("Requests at the receiver", "signatures made anew and compared")?;
        self.out.flush()
    }

    /// One request; `after` is counted from the call that published.
    pub(super) fn request(
        &mut self,
        received: &Received,
        noted: &Noted,
        after: Duration,
    ) -> io::Result<()> {
        let path = visible(&received.path);
        let event_type = noted.event_type.unwrap_or("?");
        let status = self.paint.status(received.answer);
        let signature = match &noted.signature {
            Ok(header) => self.paint.good(format!("✓ {header}")),
            Err(why) => self.paint.bad(format!("✗ {why}")),
        };
        let after = self.paint.quiet(format!("{:>5} ms", after.as_millis()));
        let start = format_args!("  {after}  {path:<PATH$}  {event_type:<EVENT_TYPE$}  {status}");
        match noted.attempt {
            1 => writeln!(self.out, "{start}  {signature}")?,
            attempt => {
                let again = self.paint.quiet(format!("attempt {attempt}, the same bytes"));
                writeln!(self.out, "{start}  {signature}  {again}")?;
            }
        }
        self.out.flush()
    }

    /// What the service says of its deliveries.
    pub(super) fn statuses(&mut self, statuses: &[Status]) -> io::Result<()> {
        self.section("Deliveries", "ListDeliveries, ListDeliveryAttempts")?;
        for status in statuses {
            let Status { delivery_id, event_type, path, state, answers } = status;
            let id = self.paint.quiet(delivery_id);
            let state = match state.as_str() {
                "SUCCEEDED" => self.paint.good(state),
                "" => self.paint.bad("unknown"),
                other => self.paint.bad(other),
            };
            let answers: Vec<String> = answers.iter().map(u32::to_string).collect();
            let answers = answers.join(", ");
            writeln!(
                self.out,
                "  {id:<30}  {path:<PATH$}  {event_type:<EVENT_TYPE$}  {state:<9}  {answers}"
            )?;
        }
        self.out.flush()
    }

    /// How it went, and where to go from here.
    pub(super) fn verdict(
        &mut self,
        faults: &[String],
        requests: usize,
        deliveries: usize,
        took: Duration,
    ) -> io::Result<()> {
        writeln!(self.out)?;
        if !faults.is_empty() {
            writeln!(self.out, "{}", self.paint.bad("Not as it had to be:"))?;
            for fault in faults {
                writeln!(self.out, "  {} {}", self.paint.bad("✗"), visible(fault))?;
            }
            return self.out.flush();
        }
        let held = self.paint.good("✓ All of it held:");
        let took = took.as_secs_f64();
        writeln!(
            self.out,
            "{held} {requests} requests, every body and signature right; \
             {deliveries} deliveries succeeded; {took:.1} s."
        )?;
        self.next_steps()
    }

    fn next_steps(&mut self) -> io::Result<()> {
        self.section("Next", "each in a terminal of its own")?;
        writeln!(self.out, "{NEXT_STEPS}")?;
        self.out.flush()
    }

    fn section(&mut self, name: &str, how: &str) -> io::Result<()> {
        let (name, how) = (self.paint.strong(name), self.paint.quiet(format!("({how})")));
        writeln!(self.out, "\n{name} {how}")
    }
}

/// What a person does next: the same by hand.
const NEXT_STEPS: &str = r#"  hookward listen
  hookward serve --egress-allow 127.0.0.1:9000
  grpcurl -plaintext -d '{"organization_id": "me", "subscription":
    {"url": "http://127.0.0.1:9000/hook", "event_patterns": ["*"]}}' \
    127.0.0.1:50051 hookward.v1.SubscriptionService/CreateSubscription
  grpcurl -plaintext -d '{"organization_id": "me", "events":
    [{"type": "greeting", "json": "{\"hello\": \"you\"}"}]}' \
    127.0.0.1:50051 hookward.v1.EventService/PublishEvents"#;

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;

    fn written(write: impl FnOnce(&mut Report<&mut Vec<u8>>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        write(&mut Report::new(Paint::plain(), &mut out)).expect("written");
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn requests_stand_in_columns() {
        let line = |path: &str, answer, noted: &Noted, after| {
            let received = Received {
                at: OffsetDateTime::UNIX_EPOCH,
                method: "POST".to_owned(),
                path: path.to_owned(),
                headers: Vec::new(),
                body: None,
                answer,
            };
            written(|report| report.request(&received, noted, Duration::from_millis(after)))
        };
        let good =
            Noted { event_type: Some("order_created"), attempt: 1, signature: Ok("x-signature") };
        assert_eq!(
            line("/telegramd", 200, &good, 4),
            "      4 ms  /telegramd       order_created                  200  ✓ x-signature\n"
        );
        let again = Noted { attempt: 2, ..good };
        assert_eq!(
            line("/recovering", 503, &again, 1021),
            "   1021 ms  /recovering      order_created                  503  ✓ x-signature  \
             attempt 2, the same bytes\n"
        );
        let wrong = Noted { event_type: None, attempt: 1, signature: Err("unexpected".to_owned()) };
        assert!(line("/\u{1b}", 200, &wrong, 1).contains("/\\u{1b}"));
    }

    #[test]
    fn a_fault_is_named_and_nothing_is_praised() {
        let faults = ["1 of 3 requests did not come".to_owned()];
        let text = written(|report| report.verdict(&faults, 1, 2, Duration::ZERO));
        assert_eq!(text, "\nNot as it had to be:\n  ✗ 1 of 3 requests did not come\n");
        let text = written(|report| report.verdict(&[], 15, 13, Duration::from_millis(1230)));
        assert!(text.starts_with("\n✓ All of it held: 15 requests"), "{text}");
        assert!(text.contains("hookward listen"));
    }
}
