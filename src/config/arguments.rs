//! Which settings there are, as flags and as variables of the environment.
//!
//! Values are texts here and read in [`super`], so that all faults can be reported
//! together. The first paragraph of each comment is what `-h` shows.

#![expect(
    clippy::doc_markdown,
    reason = "these comments are shown on terminals, where backticks and brackets are noise"
)]

use std::fmt;
use std::path::PathBuf;

use clap::Args;
use clap::builder::{BoolishValueParser, PathBufValueParser, TypedValueParser};

use super::file::ConfigFile;

/// Settings of `hookward serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeArguments {
    #[command(flatten)]
    pub(super) database: DatabaseArguments,
    #[command(flatten)]
    pub(super) encryption: EncryptionArguments,
    /// Most connections to PostgreSQL.
    ///
    /// Half of them, but no more than six, are for commits and sending; calls
    /// share the others. Too low: calls find none within a second and are refused with
    /// UNAVAILABLE. Too high: PostgreSQL's max_connections runs out; count every replica,
    /// and three more for each. SQLite does not use it.
    #[arg(long, env = "HOOKWARD_DATABASE_CONNECTIONS", hide_env_values = true)]
    #[arg(value_name = "COUNT", default_value = "16")]
    pub(super) database_connections: String,
    /// Address and port of the gRPC API.
    ///
    /// Port 0 takes any free one. Other than loopback needs --auth or --insecure-no-auth.
    #[arg(long, env = "HOOKWARD_GRPC_LISTEN", hide_env_values = true)]
    #[arg(value_name = "IP:PORT", default_value = "127.0.0.1:50051")]
    pub(super) grpc_listen: String,
    #[command(flatten)]
    pub(super) admin: AdminArguments,
    /// What this process does: all, api or dispatch.
    ///
    /// api answers calls and leaves sending to others; dispatch sends and answers no
    /// calls. Deliveries wait for ever where no process dispatches.
    #[arg(long, env = "HOOKWARD_ROLE", hide_env_values = true)]
    #[arg(value_name = "ROLE", default_value = "all")]
    pub(super) role: String,
    /// What callers may show to be let in: none, or some of api-key, certificate and jwt,
    /// separated by commas.
    ///
    /// Keys are made by hookward api-key create; certificate and jwt need --auth-file.
    /// Without credentials every caller may read and change everything, so the server
    /// listens on loopback only.
    #[arg(long, env = "HOOKWARD_AUTH", hide_env_values = true)]
    #[arg(value_name = "KINDS", default_value = "none")]
    pub(super) auth: String,
    /// TOML file that says whose certificates and whose tokens are good, and for what.
    ///
    /// Read at start; docs/AUTHENTICATION.md tells its keys.
    #[arg(long, env = "HOOKWARD_AUTH_FILE", hide_env_values = true, value_name = "FILE")]
    pub(super) auth_file: Option<PathBuf>,
    /// PEM file of the gRPC server's certificate and those between it and a root.
    ///
    /// With it and --tls-key the port speaks TLS 1.2 or newer and nothing else. Looked at
    /// every five seconds, so that a renewed certificate is used without a restart.
    #[arg(long, env = "HOOKWARD_TLS_CERT", hide_env_values = true, value_name = "FILE")]
    pub(super) tls_cert: Option<PathBuf>,
    /// PEM file of the private key of --tls-cert.
    #[arg(long, env = "HOOKWARD_TLS_KEY", hide_env_values = true, value_name = "FILE")]
    pub(super) tls_key: Option<PathBuf>,
    /// PEM file of the authorities whose certificates callers show.
    ///
    /// A certificate is then needed for every connection, also for health checks, unless
    /// certificate is one of several kinds of --auth. Looked at as --tls-cert is.
    #[arg(long, env = "HOOKWARD_TLS_CLIENT_CA", hide_env_values = true, value_name = "FILE")]
    pub(super) tls_client_ca: Option<PathBuf>,
    /// Serve gRPC without credentials to whoever reaches it, also beyond loopback.
    ///
    /// Every caller may read and change everything of every organization. Only where
    /// something else keeps strangers away.
    #[arg(long, env = "HOOKWARD_INSECURE_NO_AUTH", hide_env_values = true)]
    #[arg(value_parser = BoolishValueParser::new())]
    pub(super) insecure_no_auth: bool,
    /// Address or network, with ports if not all and for one organization if not everybody,
    /// that may be called although it is not public, also with plain http. Repeatable.
    ///
    /// Such as 10.1.0.0/16:443,8443 or [fd00::]/8:443@clinic-7. Several in one value are
    /// separated by spaces or semicolons; commas separate ports. Too wide: subscriptions
    /// reach into your own network.
    #[arg(long, env = "HOOKWARD_EGRESS_ALLOW", hide_env_values = true)]
    #[arg(value_name = "CIDR[:PORTS][@ORGANIZATION]")]
    pub(super) egress_allow: Vec<String>,
    /// Network that is never called, whatever else is said. Repeatable.
    ///
    /// For public addresses of your own. Several in one value are separated by spaces or
    /// semicolons.
    #[arg(long, env = "HOOKWARD_EGRESS_DENY", hide_env_values = true)]
    #[arg(value_name = "CIDR")]
    pub(super) egress_deny: Vec<String>,
    /// What becomes of names with both allowed and forbidden addresses: refuse or filter.
    ///
    /// refuse calls none of them: a forbidden address among others is a mistake or an
    /// attack. filter calls the allowed ones; for networks whose name servers add private
    /// addresses to public names.
    #[arg(long, env = "HOOKWARD_EGRESS_MIXED_ANSWERS", hide_env_values = true)]
    #[arg(value_name = "WAY", default_value = "refuse")]
    pub(super) egress_mixed_answers: String,
    /// Prefix under which your network reaches IPv4 addresses (NAT64). Repeatable.
    ///
    /// For networks with IPv6 only, behind DNS64: 64:ff9b::/96, or a prefix of your own of
    /// 32, 40, 48, 56, 64 or 96 bits. An address under it is judged as the IPv4 address that
    /// it stands for. Missing: names that have IPv4 addresses only cannot be called, and an
    /// own prefix that looks public leads anywhere.
    #[arg(long, env = "HOOKWARD_EGRESS_NAT64", hide_env_values = true)]
    #[arg(value_name = "PREFIX")]
    pub(super) egress_nat64: Vec<String>,
    /// Proxy through which receivers are reached (HTTP CONNECT).
    ///
    /// Addresses are resolved and judged here all the same, and the proxy is asked for them,
    /// never for names. It should filter too. While it does not work deliveries wait, and no
    /// retry is spent. Proxies of the environment, such as HTTPS_PROXY, are not used.
    #[arg(long, env = "HOOKWARD_EGRESS_PROXY", hide_env_values = true, value_name = "HOST:PORT")]
    pub(super) egress_proxy: Option<String>,
    /// PEM file of a certificate authority to trust besides the public ones. Repeatable.
    ///
    /// Several in one value are separated by semicolons. Followed without a restart.
    #[arg(long, env = "HOOKWARD_EGRESS_CA", hide_env_values = true)]
    #[arg(value_name = "FILE")]
    pub(super) egress_ca: Vec<String>,
    /// Name server to ask for receivers' addresses, instead of the system's. Repeatable.
    ///
    /// Port 53 unless given. Several in one value are separated by spaces or semicolons.
    #[arg(long, env = "HOOKWARD_EGRESS_NAMESERVER", hide_env_values = true)]
    #[arg(value_name = "IP[:PORT]")]
    pub(super) egress_nameserver: Vec<String>,
    /// Folder of your own wire profiles, one .toml file each.
    ///
    /// Followed without a restart; every replica needs the same ones. A subscription whose
    /// profile is missing is not sent to.
    #[arg(long, env = "HOOKWARD_PROFILES", hide_env_values = true, value_name = "FOLDER")]
    pub(super) profiles: Option<PathBuf>,
    /// Do not describe the API to gRPC clients that ask (server reflection).
    #[arg(long, env = "HOOKWARD_NO_REFLECTION", hide_env_values = true)]
    #[arg(value_parser = BoolishValueParser::new())]
    pub(super) no_reflection: bool,
    /// Largest payload of an event, in bytes; at most 1MiB.
    ///
    /// Too low: publishers are refused. Too high: fewer deliveries fit into memory, and
    /// receivers may refuse what is large.
    #[arg(long, env = "HOOKWARD_PAYLOAD_BYTES_MAX", hide_env_values = true)]
    #[arg(value_name = "BYTES", default_value = "256KiB")]
    pub(super) payload_bytes_max: String,
    /// Most events that may wait to be committed.
    ///
    /// Fewer may while those before take longer than 150ms to be stored. Too low: bursts
    /// are refused with RESOURCE_EXHAUSTED. Too high: memory.
    #[arg(long, env = "HOOKWARD_PUBLISH_QUEUE_EVENTS", hide_env_values = true)]
    #[arg(value_name = "COUNT", default_value = "4096")]
    pub(super) publish_queue_events: String,
    /// Payload bytes that may wait to be committed.
    ///
    /// Bounds memory where payloads are large, as --publish-queue-events does where they
    /// are small.
    #[arg(long, env = "HOOKWARD_PUBLISH_QUEUE_BYTES", hide_env_values = true)]
    #[arg(value_name = "BYTES", default_value = "64MiB")]
    pub(super) publish_queue_bytes: String,
    /// Events of one organization that may be published a second at this process, or off.
    ///
    /// As many as five seconds allow may come at once; what exceeds it is refused with
    /// RESOURCE_EXHAUSTED and the time to wait. Every replica counts for itself. Too low:
    /// publishers are held up. Too high: one organization takes the room of the others.
    #[arg(long, env = "HOOKWARD_MAX_PUBLISH_RATE_ORGANIZATION", hide_env_values = true)]
    #[arg(value_name = "COUNT|off", default_value = "1000")]
    pub(super) max_publish_rate_organization: String,
    /// Deliveries that one organization may have open, or off.
    ///
    /// Open is what waits for its receiver, also while its subscription is paused. An
    /// organization that has as many publishes no more until a tenth of it is free: it is
    /// refused with RESOURCE_EXHAUSTED. Counted every five seconds, or less often where that
    /// takes long; what comes in between is let in. Too low: one receiver that is down stops
    /// its organization's publishers. Too high: one organization fills the disk of all.
    #[arg(long, env = "HOOKWARD_MAX_OPEN_DELIVERIES_ORGANIZATION", hide_env_values = true)]
    #[arg(value_name = "COUNT|off", default_value = "1000000")]
    pub(super) max_open_deliveries_organization: String,
    /// Other calls for one organization that may be made a second at this process, or off.
    ///
    /// As with publishing: five seconds' worth may come at once, and every replica counts
    /// for itself. Too high: who polls in a loop slows the others.
    #[arg(long, env = "HOOKWARD_MAX_CALL_RATE_ORGANIZATION", hide_env_values = true)]
    #[arg(value_name = "COUNT|off", default_value = "50")]
    pub(super) max_call_rate_organization: String,
    /// Requests to receivers that may be under way in this process.
    ///
    /// Too low: slow receivers hold up the others. Too high: memory, and file descriptors
    /// run out (ulimit -n).
    #[arg(long, env = "HOOKWARD_MAX_IN_FLIGHT_REPLICA", hide_env_values = true)]
    #[arg(value_name = "COUNT", default_value = "512")]
    pub(super) max_in_flight_replica: String,
    /// Requests of one organization that may be under way in this process.
    ///
    /// Too low: a busy organization's deliveries wait although there is room. Too high:
    /// one with slow receivers takes the room of the others.
    #[arg(long, env = "HOOKWARD_MAX_IN_FLIGHT_ORGANIZATION", hide_env_values = true)]
    #[arg(value_name = "COUNT", default_value = "128")]
    pub(super) max_in_flight_organization: String,
    /// Time without one success after which a subscription is disabled, or off.
    ///
    /// It takes --auto-disable-deliveries too. It is the time from the first failure to the
    /// last delivery given up, by a clock that stands still while nothing is sent. Too low:
    /// receivers that are mended after a weekend are cut off. Too high, or off: deliveries
    /// are tried for nothing, and their dead letters kept.
    #[arg(long, env = "HOOKWARD_AUTO_DISABLE_AFTER", hide_env_values = true)]
    #[arg(value_name = "TIME|off", default_value = "5d")]
    pub(super) auto_disable_after: String,
    /// Deliveries that must have spent their attempts meanwhile.
    ///
    /// Failures of this side, such as an address that may not be called, do not count. Too
    /// low: a receiver that seldom gets anything is cut off for one event that it does not
    /// take.
    #[arg(long, env = "HOOKWARD_AUTO_DISABLE_DELIVERIES", hide_env_values = true)]
    #[arg(value_name = "COUNT", default_value = "10")]
    pub(super) auto_disable_deliveries: String,
    /// Time from one probe of the canary to the next, from 1s to 2m, or off.
    ///
    /// Each process that takes calls publishes an event of the service's own as often, and
    /// counts whether it is delivered: docs/METRICS.md, hookward_canary_probes_total. Of no
    /// use unless somebody watches that. Give every replica the same: those that send take
    /// in what is delivered, unless it is off.
    #[arg(long, env = "HOOKWARD_CANARY_INTERVAL", hide_env_values = true)]
    #[arg(value_name = "TIME|off", default_value = "off")]
    pub(super) canary_interval: String,
    /// Longest that requests under way may hold up the end after SIGTERM, from 0s to 10m.
    ///
    /// Too low: what was cut off is sent again by another replica, or after the next
    /// start. Too high: the orchestrator kills first; stay 25 seconds below its own grace
    /// period, which calls, outcomes and traces may take to be finished.
    #[arg(long, env = "HOOKWARD_SHUTDOWN_GRACE", hide_env_values = true)]
    #[arg(value_name = "TIME", default_value = "20s")]
    pub(super) shutdown_grace: String,
    #[command(flatten)]
    pub(super) log: LogArguments,
}

/// Where health and metrics are.
#[derive(Args, Clone, Debug)]
pub struct AdminArguments {
    /// Address and port of /healthz, /readyz and /metrics, or off.
    ///
    /// Who reaches it sees counts and times, never whose events they are.
    #[arg(long, env = "HOOKWARD_ADMIN_LISTEN", hide_env_values = true)]
    #[arg(value_name = "IP:PORT|off", default_value = "127.0.0.1:8080")]
    pub(super) admin_listen: String,
}

/// Where settings are said besides flags and variables.
#[derive(Args, Clone, Debug)]
pub struct FileArguments {
    /// TOML file of settings; its keys are the names of these flags, without dashes in front.
    ///
    /// A flag and a variable win over it, and it wins over the defaults. Keys of settings that a
    /// command does not take are left alone, so that one file does for all commands. The server
    /// looks at it every five seconds.
    #[arg(long, env = "HOOKWARD_CONFIG", hide_env_values = true, value_name = "FILE")]
    #[arg(value_parser = PathBufValueParser::new().map(ConfigFile::read))]
    pub(super) config: Option<ConfigFile>,
}

/// Which database.
#[derive(Args, Clone, Debug)]
pub struct DatabaseArguments {
    #[command(flatten)]
    pub(super) file: FileArguments,
    /// sqlite:PATH for one process, postgres://USER:PASSWORD@HOST/NAME for several.
    ///
    /// A SQLite file is made if it is missing. A password here can be seen in the process
    /// list: prefer the variable, or --database-url-file.
    #[arg(long, env = "HOOKWARD_DATABASE_URL", hide_env_values = true)]
    #[arg(value_name = "URL", default_value = "sqlite:hookward.db")]
    pub(super) database_url: String,
    /// File that holds the URL; wins over --database-url.
    #[arg(long, env = "HOOKWARD_DATABASE_URL_FILE", hide_env_values = true)]
    #[arg(value_name = "FILE")]
    pub(super) database_url_file: Option<PathBuf>,
}

/// What stored values are encrypted under. Not to be printed.
#[derive(Args, Clone)]
pub struct EncryptionArguments {
    /// Keys that payloads, secrets and headers are encrypted under in the database; without
    /// any they are plaintext.
    ///
    /// Entries id=KEY separated by semicolons, each key the base64 of 32 random bytes; of
    /// several, primary=id names the one for what is new. Every replica needs all of them,
    /// and the server refuses to start without one that is in use. Here they can be seen in
    /// the process list: prefer the variable, or --encryption-keys-file.
    #[arg(long, env = "HOOKWARD_ENCRYPTION_KEYS", hide_env_values = true)]
    #[arg(value_name = "ENTRIES")]
    pub(super) encryption_keys: Option<String>,
    /// File that holds such entries, a line each, or folder of such files; wins over
    /// --encryption-keys.
    ///
    /// Followed without a restart, but a key that is in use cannot go. In a folder, files whose
    /// names begin with a full stop are left out.
    #[arg(long, env = "HOOKWARD_ENCRYPTION_KEYS_FILE", hide_env_values = true)]
    #[arg(value_name = "PATH")]
    pub(super) encryption_keys_file: Option<PathBuf>,
}

impl fmt::Debug for EncryptionArguments {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = &self.encryption_keys_file;
        formatter.debug_struct("EncryptionArguments").field("file", file).finish_non_exhaustive()
    }
}

/// What is logged and exported.
#[derive(Args, Clone, Debug)]
pub struct LogArguments {
    /// How a line of the log looks: people or json.
    #[arg(long, env = "HOOKWARD_LOG_FORMAT", hide_env_values = true)]
    #[arg(value_name = "FORMAT", default_value = "people")]
    pub(super) log_format: String,
    /// What is logged: off, error, warn, info, debug or trace, or directives.
    ///
    /// A level is about Hookward's own lines; libraries log warnings only. Directives, such
    /// as hookward::dispatcher=debug,warn, are those of tracing-subscriber's EnvFilter and
    /// can open the libraries too: at debug and trace these write what peers send, which
    /// may be patient data.
    #[arg(long, env = "HOOKWARD_LOG", hide_env_values = true)]
    #[arg(value_name = "FILTER", default_value = "info")]
    pub(super) log: String,
    /// http:// URL of an OpenTelemetry collector, most often with port 4317 for gRPC and 4318
    /// for HTTP.
    ///
    /// Without it no traces are made, at no cost. OTEL_SERVICE_NAME,
    /// OTEL_RESOURCE_ATTRIBUTES and OTEL_EXPORTER_OTLP_HEADERS are respected.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", hide_env_values = true)]
    #[arg(value_name = "URL")]
    pub(super) otlp_endpoint: Option<String>,
    /// How the collector is spoken to: grpc or http/protobuf.
    ///
    /// With http/protobuf traces are sent to the path v1/traces under the endpoint's, and
    /// metrics to v1/metrics.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_PROTOCOL", hide_env_values = true)]
    #[arg(value_name = "NAME", default_value = "grpc")]
    pub(super) otlp_protocol: String,
    /// Where metrics go besides /metrics: none, or otlp for the collector of --otlp-endpoint.
    ///
    /// Name and values are OpenTelemetry's own, so that what is set for all services counts
    /// here too; only the default is not, since who has a collector may read /metrics with
    /// it. prometheus, which is that page, counts as none.
    #[arg(long, env = "OTEL_METRICS_EXPORTER", hide_env_values = true)]
    #[arg(value_name = "NAME", default_value = "none")]
    pub(super) metrics_exporter: String,
    /// Milliseconds from one time that metrics are sent to the next, from 100.
    ///
    /// Without a unit, as OpenTelemetry has it. The last values are sent at the end. Too low:
    /// the collector's time and storage. Too high: graphs and alerts are late.
    #[arg(long, env = "OTEL_METRIC_EXPORT_INTERVAL", hide_env_values = true)]
    #[arg(value_name = "MILLISECONDS", default_value = "60000")]
    pub(super) metric_export_interval: String,
    /// Which traces are made: always_on, always_off or traceidratio, or one of these after
    /// parentbased_.
    ///
    /// Those after parentbased_ do as the caller does, and as their names say without a
    /// caller; with them a trace that is not sampled costs next to nothing.
    #[arg(long, env = "OTEL_TRACES_SAMPLER", hide_env_values = true)]
    #[arg(value_name = "NAME", default_value = "parentbased_always_on")]
    pub(super) traces_sampler: String,
    /// Part of the traces that the samplers with traceidratio sample, from 0 to 1.
    ///
    /// Too low: the trace that is asked for is not there. Too high: spans take the time of
    /// deliveries, and the collector's.
    #[arg(long, env = "OTEL_TRACES_SAMPLER_ARG", hide_env_values = true)]
    #[arg(value_name = "RATIO", default_value = "1")]
    pub(super) traces_sampler_arg: String,
}
