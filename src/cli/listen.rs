//! `hookward listen`: a receiver for people. Shows each request as it comes, checks its
//! signature and answers as told.

mod block;
mod body;

use std::io;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::ctrl_c;

use crate::domain::profile::DEFAULT_PROFILE;
use crate::domain::profile::Profiles;

use super::receiver::Answers;
use super::receiver::Receiver;
use super::receiver::ReceiverSettings;
use super::terminal::Paint;
use super::verifier::Verifier;
use block::Block;

/// Longest that `--delay` may be; attempts give up after at most 30 s.
const DELAY_MAX: Duration = Duration::from_mins(10);

/// Receive webhooks and show them, their signatures checked.
///
/// A receiver for trying things out: answers as it is told and keeps nothing.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9000")]
    pub listen: SocketAddr,
    /// Wire profile of the requests: how they are signed and where their ids are
    #[arg(long, value_name = "NAME", default_value = DEFAULT_PROFILE)]
    pub profile: String,
    /// Signing secret to verify requests with; may be given several times
    #[arg(long = "secret", value_name = "TEXT")]
    pub secrets: Vec<String>,
    /// Status to answer; of a list such as 503,503,200 each once, then the last for good
    #[arg(long, value_name = "STATUS", default_value_t = Answers::default())]
    pub answer: Answers,
    /// Wait this long before answering, such as 200ms or 2s
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_delay)]
    pub delay: Duration,
    /// Speak TLS, with a certificate of an authority made for this run
    #[arg(long)]
    pub tls: bool,
    /// Where to write the authority's certificate for `serve --egress-ca`
    #[arg(long, value_name = "FILE", default_value = "hookward-listen-ca.pem", requires = "tls")]
    pub ca_file: PathBuf,
    /// Do not show bodies: they may be about patients
    #[arg(long)]
    pub no_body: bool,
    /// No colours, even on a terminal
    #[arg(long, env = "NO_COLOR", value_parser = clap::builder::FalseyValueParser::new())]
    pub no_color: bool,
}

/// Listens and shows requests until ctrl-c, or until nobody reads the output.
///
/// # Errors
///
/// When the profile is not known, a secret is not one of the profile, the address is
/// taken, or the authority's certificate cannot be written.
pub async fn listen(arguments: Arguments) -> anyhow::Result<()> {
    let profiles = Profiles::built_in();
    let profile = profiles.get(&arguments.profile).with_context(|| {
        let known: Vec<&str> = profiles.iter().map(|profile| profile.name()).collect();
        format!("there is no profile {}; there are {}", arguments.profile, known.join(", "))
    })?;
    let verifier = Verifier::new(Arc::clone(profile), &arguments.secrets)?;
    let mut receiver = Receiver::start(ReceiverSettings {
        tls: arguments.tls,
        answers: arguments.answer.clone(),
        delay: arguments.delay,
        ..ReceiverSettings::new(arguments.listen)
    })
    .await?;
    if let Some(pem) = receiver.authority_pem() {
        std::fs::write(&arguments.ca_file, pem)
            .with_context(|| format!("cannot write {}", arguments.ca_file.display()))?;
    }
    let paint = Paint::for_stdout(arguments.no_color);
    let mut out = io::stdout();
    let shown = show(&mut receiver, &verifier, &arguments, paint, &mut out).await;
    match shown {
        // As with `listen | head`: whoever read has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to standard output"),
    }
}

async fn show(
    receiver: &mut Receiver,
    verifier: &Verifier,
    arguments: &Arguments,
    paint: Paint,
    out: &mut impl Write,
) -> io::Result<()> {
    write_welcome(receiver, arguments, paint, out)?;
    let mut count: u64 = 0;
    loop {
        let request = tokio::select! {
            request = receiver.next() => request,
            stopped = ctrl_c() => {
                stopped?;
                return writeln!(out, "\nRequests received: {count}");
            }
        };
        count += 1;
        let verdict = verifier.check(&request);
        let block = Block {
            number: count,
            received: &request,
            profile: verifier.profile(),
            verdict: &verdict,
            show_body: !arguments.no_body,
        };
        block.write(paint, out)?;
        out.flush()?;
    }
}

/// What to call, and what the server must be told so that it may.
fn write_welcome(
    receiver: &Receiver,
    arguments: &Arguments,
    paint: Paint,
    out: &mut impl Write,
) -> io::Result<()> {
    let (url, address) = (receiver.url(), receiver.address());
    let secrets = match arguments.secrets.len() {
        0 => "signatures are not checked: no --secret".to_owned(),
        1 => "signatures are checked".to_owned(),
        several => format!("signatures are checked with {several} secrets"),
    };
    writeln!(out, "Listening on {}", paint.strong(url))?;
    writeln!(out, "  profile   {}; {secrets}", arguments.profile)?;
    writeln!(out, "  answer    {}", arguments.answer)?;
    if !arguments.delay.is_zero() {
        writeln!(out, "  delay     {:?}", arguments.delay)?;
    }
    let ip = match address.ip() {
        ip if ip.is_unspecified() => std::net::Ipv4Addr::LOCALHOST.into(),
        ip => ip,
    };
    let allow = SocketAddr::new(ip, address.port());
    write!(out, "  server    hookward serve --egress-allow {allow}")?;
    if arguments.tls {
        write!(out, " --egress-ca {}", arguments.ca_file.display())?;
    }
    writeln!(out, "\n\n{}\n", paint.quiet("Waiting for requests. Ctrl-C ends."))?;
    out.flush()
}

/// Reads `200ms`, `2s` or `1m`.
fn parse_delay(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let number: Option<u32> = digits.parse().ok();
    let unit = match &text[digits.len()..] {
        "ms" => Some(Duration::from_millis(1)),
        "s" => Some(Duration::from_secs(1)),
        "m" => Some(Duration::from_mins(1)),
        _ => None,
    };
    let delay = number.zip(unit).and_then(|(number, unit)| unit.checked_mul(number));
    delay
        .filter(|delay| *delay <= DELAY_MAX)
        .ok_or_else(|| "must be a number and ms, s or m, at most 10m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(words: &[&str]) -> Result<Arguments, clap::Error> {
        let words = ["listen"].iter().chain(words);
        <Command as clap::Parser>::try_parse_from(words).map(|command| command.arguments)
    }

    #[test]
    fn without_flags_it_answers_200_on_port_9000() {
        let arguments = parse(&[]).expect("no flag is required");
        assert_eq!(arguments.listen.to_string(), "127.0.0.1:9000");
        assert_eq!(arguments.answer, Answers::default());
        assert_eq!(arguments.profile, "standard");
        assert!(!arguments.tls && !arguments.no_body && arguments.delay.is_zero());
    }

    #[test]
    fn delays_are_numbers_with_a_unit() {
        for (text, millis) in [("200ms", 200), ("2s", 2000), ("10m", 600_000), ("0s", 0)] {
            assert_eq!(parse_delay(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for wrong in ["", "2", "s", "-1s", "1.5s", "11m", "2h", "99999999999s", "2 s", "é"] {
            assert!(parse_delay(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn the_welcome_says_what_the_server_must_be_told() {
        let arguments = parse(&["--listen", "0.0.0.0:0", "--tls", "--answer", "503,200"]);
        let arguments = arguments.expect("flags");
        let receiver = Receiver::start(ReceiverSettings {
            tls: true,
            ..ReceiverSettings::new(arguments.listen)
        });
        let receiver = receiver.await.expect("a free port");
        let mut out = Vec::new();
        write_welcome(&receiver, &arguments, Paint::plain(), &mut out).expect("written");
        let port = receiver.address().port();
        let expected = format!(
            "Listening on https://0.0.0.0:{port}\n\
             \x20 profile   standard; signatures are not checked: no --secret\n\
             \x20 answer    503, then 200\n\
             \x20 server    hookward serve --egress-allow 127.0.0.1:{port} --egress-ca \
             hookward-listen-ca.pem\n\nWaiting for requests. Ctrl-C ends.\n\n"
        );
        assert_eq!(String::from_utf8(out).expect("UTF-8"), expected);
    }
}
