//! The whole of Hookward, wired together: settings in, a running service out.

mod engine;
#[cfg(test)]
mod engine_tests;
mod opening;
mod own_addresses;
mod reload;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use self::reload::ReloadError;

use self::engine::Engine;
use self::reload::{Changeable, WayOut};
use crate::admin::{self, NotReady, Readiness};
use crate::audit::Auditor;
use crate::config::{Auth, Role, Settings};
use crate::credentials::{Credentials, Issuers};
use crate::domain::catalog::Catalog;
use crate::domain::rate::Rate;
use crate::egress::Egress;
use crate::grpc;
use crate::metrics::Metrics;
use crate::permits::RateLimiter;
use crate::store::StoreError;

/// How long a call under way may take to end once the service stops.
const CALLS_GRACE: Duration = Duration::from_secs(5);
/// How often receivers of one organization may be pinged in a minute: a ping tells what is
/// behind an address that its caller has chosen.
const PINGS_A_MINUTE: NonZeroU32 = NonZeroU32::new(10).expect("it is not zero");

/// Where each process that sends takes in what the canary's probes deliver: any free port.
const CANARY_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// How long the last refused calls may take to be written.
const AUDIT_GRACE: Duration = Duration::from_secs(2);

/// A running service.
pub struct App {
    engine: Engine,
    /// What can be changed while it runs, and is not in the engine.
    changeable: Changeable,
    health: grpc::Health,
    draining: Arc<AtomicBool>,
    grpc_address: Option<SocketAddr>,
    admin_address: Option<SocketAddr>,
    grace: Duration,
    stop_calls: CancellationToken,
    stop_auditing: CancellationToken,
    stop_watching: CancellationToken,
    calls: Option<JoinHandle<()>>,
    /// What the metrics ask, for as long as it is here.
    readiness: Arc<OnceLock<Readiness>>,
    auditing: JoinHandle<()>,
    watching: Vec<JoinHandle<()>>,
}

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings, or what they point at, cannot be used.
    #[error("{0}")]
    Settings(String),
    /// An address cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// What of this deployment must not be called is not known.
    #[error("cannot find the addresses of this deployment's own parts: {0}")]
    OwnAddresses(std::io::Error),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl App {
    /// Starts the service. It takes calls when this returns.
    ///
    /// # Errors
    ///
    /// See [`StartError`]; nothing goes on running then.
    pub async fn start(settings: Settings, metrics: Metrics) -> Result<App, StartError> {
        let (issuers, nameservers) = (settings.auth.issuers.clone(), &settings.egress.nameservers);
        let issuers = Issuers::new(issuers, nameservers, &metrics)
            .map_err(|error| StartError::Settings(error.to_string()))?;
        let admin_listener = listen_if(settings.admin_listen).await?;
        let admin_address = address(admin_listener.as_ref());
        // Health and metrics come first: they tell what the rest waits for.
        let (started, stop_watching) = (asked_by(&metrics), CancellationToken::new());
        let unless_started = stop_watching.clone().drop_guard();
        let watching = admin_listener.map(|listener| {
            watch(listener, metrics.clone(), once(&started), stop_watching.clone())
        });
        let store = opening::open(&settings.database).await?;
        // Not before: callers would wait for who waits for the database. Nor later: a port that
        // is taken should not cost a replica's registration.
        let takes_calls = settings.role != Role::Dispatch;
        let grpc_listener = listen_if(takes_calls.then_some(settings.grpc_listen)).await?;
        let canary_listener = listen_if(canary_address(&settings)).await?;
        let canary = address(canary_listener.as_ref());
        let engine = engine_settings(&settings, canary_listener);
        let listeners = [address(grpc_listener.as_ref()), admin_address, canary];
        let servers = settings.database.target.server().into_iter().chain(settings.kubernetes_api);
        let (listeners, servers) = (listeners.into_iter().flatten().collect(), servers.collect());
        let idle_in_all_max = settings.egress.idle_in_all_max;
        let way_out = WayOut { listeners, servers, idle_in_all_max, canary };
        let egress = way_out.open(settings.egress).await?;
        let calls = RateLimiter::new(settings.call_rate);
        let api_keys = if takes_calls && settings.auth.api_keys {
            Some(Credentials::load(store.clone()).await?)
        } else {
            None
        };
        let (profiles, counts) = (settings.profiles, metrics.clone());
        let engine = Engine::start(store, profiles, egress.clone(), counts, engine).await?;
        let draining = Arc::new(AtomicBool::new(false));
        let (auditor, writer) = Auditor::new(engine.store.for_upkeep(), metrics.clone());
        let stop_auditing = CancellationToken::new();
        let limits = grpc::Limits { payload_bytes_max: settings.payload_bytes_max };
        let context = context(&engine, auditor, egress.clone(), limits);
        let mut app = App {
            health: grpc::Health::starting().await,
            draining,
            grpc_address: address(grpc_listener.as_ref()),
            admin_address,
            engine,
            changeable: Changeable { way_out, egress, calls: calls.clone() },
            grace: settings.grace,
            stop_calls: CancellationToken::new(),
            auditing: engine::vital(writer.run(stop_auditing.clone())),
            stop_auditing,
            stop_watching,
            calls: None,
            readiness: started,
            watching: watching.into_iter().collect(),
        };
        if let Some(listener) = grpc_listener {
            let access = app.access(settings.auth, api_keys, issuers, &metrics);
            let settings = grpc::Settings {
                tls: settings.tls,
                reflection: settings.reflection,
                calls,
                metrics: metrics.clone(),
            };
            app.serve_calls(listener, context, access, settings);
        }
        app.health.set_all(true).await;
        // It is set once, here.
        let _ = app.readiness.set(readiness(&app.engine, &app.draining));
        unless_started.disarm();
        Ok(app)
    }

    /// Where calls are taken; `None` for a replica that only sends.
    #[must_use]
    pub fn grpc_address(&self) -> Option<SocketAddr> {
        self.grpc_address
    }

    /// Where health and metrics are shown.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// Stops in order: no new calls, what was taken in is committed, requests under
    /// way are finished within the grace period, the rest is given back.
    pub async fn stop(self) {
        self.draining.store(true, Ordering::SeqCst);
        self.health.set_all(false).await;
        self.stop_calls.cancel();
        if let Some(calls) = self.calls
            && tokio::time::timeout(CALLS_GRACE, calls).await.is_err()
        {
            tracing::warn!("calls are still under way after five seconds");
        }
        self.stop_auditing.cancel();
        if tokio::time::timeout(AUDIT_GRACE, self.auditing).await.is_err() {
            tracing::warn!("audit entries of refused calls are lost: the database is away");
        }
        self.engine.stop(self.grace).await;
        self.stop_watching.cancel();
        for task in self.watching {
            if task.await.is_err() {
                tracing::error!("a background task panicked");
            }
        }
    }

    /// Who is let in; without credentials everybody. What is known of callers is kept up for
    /// as long as calls are taken.
    fn access(
        &mut self,
        auth: Auth,
        api_keys: Option<Credentials>,
        issuers: Issuers,
        metrics: &Metrics,
    ) -> grpc::Access {
        if auth.is_open() {
            return grpc::Access::open();
        }
        if let Some(api_keys) = &api_keys {
            if api_keys.is_empty() {
                tracing::warn!("there is no API key: hookward api-key create makes one");
            }
            let keep = api_keys.clone().keep(metrics.clone(), self.stop_calls.clone());
            self.watching.push(tokio::spawn(keep));
        }
        let keep = issuers.clone().keep(self.stop_calls.clone());
        self.watching.push(tokio::spawn(keep));
        let (certificates, lease) = (auth.certificates, self.engine.lease.clone());
        let guard = grpc::Guard { api_keys, issuers, certificates, lease };
        grpc::Access::Guarded(Arc::new(guard))
    }

    fn serve_calls(
        &mut self,
        listener: TcpListener,
        context: grpc::Context,
        access: grpc::Access,
        settings: grpc::Settings,
    ) {
        if let Some(tls) = &settings.tls {
            let keep = tls.clone().keep(settings.metrics.clone(), self.stop_calls.clone());
            self.watching.push(tokio::spawn(keep));
        }
        let (health, stop) = (self.health.clone(), self.stop_calls.clone());
        let serve = async move {
            let served = grpc::serve(listener, context, access, settings, health, stop.cancelled());
            if let Err(error) = served.await {
                tracing::error!(%error, "the gRPC server ended");
            }
        };
        self.calls = Some(tokio::spawn(serve));
    }
}

/// Shows health and metrics until `stop`.
fn watch(
    listener: TcpListener,
    metrics: Metrics,
    readiness: Readiness,
    stop: CancellationToken,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let served = admin::serve(listener, metrics, readiness, stop.cancelled_owned());
        if let Err(error) = served.await {
            tracing::error!(%error, "the admin server ended");
        }
    })
}

/// Not ready before there is somebody to ask.
fn once(started: &Arc<OnceLock<Readiness>>) -> Readiness {
    let started = Arc::clone(started);
    Readiness::new(move || {
        started.get().map_or_else(|| vec![NotReady::Starting], Readiness::reasons)
    })
}

/// What the metrics ask for readiness, once it is set, and for as long as others keep it: they
/// must not keep alive what keeps them.
fn asked_by(metrics: &Metrics) -> Arc<OnceLock<Readiness>> {
    let started = Arc::new(OnceLock::<Readiness>::new());
    let asked = Arc::downgrade(&started);
    metrics.ready_when(move || {
        let started = asked.upgrade();
        let readiness = started.as_ref().and_then(|started| started.get());
        readiness.is_some_and(|readiness| readiness.reasons().is_empty())
    });
    started
}

/// What the services work with.
fn context(
    engine: &Engine,
    auditor: Auditor,
    egress: Egress,
    limits: grpc::Limits,
) -> grpc::Context {
    grpc::Context {
        store: engine.store.for_callers(),
        auditor,
        intake: engine.intake.clone(),
        routing: engine.routing.clone(),
        lease: engine.lease.clone(),
        circuits: engine.circuits.clone(),
        pings: RateLimiter::new(Some(Rate::per_minute(PINGS_A_MINUTE))),
        catalog: Catalog::built_in(),
        egress,
        limits,
    }
}

/// Ready means: the database was heard lately, the lease is held, and the end is not
/// near.
fn readiness(engine: &Engine, draining: &Arc<AtomicBool>) -> Readiness {
    let (lease, routing) = (engine.lease.clone(), engine.routing.clone());
    let draining = Arc::clone(draining);
    Readiness::new(move || {
        let checks = [
            (draining.load(Ordering::SeqCst), NotReady::Draining),
            (!routing.is_fresh(), NotReady::DatabaseAway),
            (!lease.is_trusted(), NotReady::LeaseLost),
        ];
        checks.into_iter().filter(|(holds, _)| *holds).map(|(_, reason)| reason).collect()
    })
}

fn engine_settings(settings: &Settings, canary_listener: Option<TcpListener>) -> engine::Settings {
    let takes_calls = settings.role != Role::Dispatch;
    engine::Settings {
        intake: settings.intake.where_calls_are_taken(takes_calls),
        in_flight: settings.in_flight,
        auto_disable: settings.auto_disable,
        dispatches: settings.role != Role::Api,
        canary_interval: settings.canary_interval.filter(|_| takes_calls),
        canary_listener,
    }
}

/// Where the canary's deliveries come in: wherever one sends, unless it is off.
fn canary_address(settings: &Settings) -> Option<SocketAddr> {
    (settings.role != Role::Api && settings.canary_interval.is_some()).then_some(CANARY_LISTEN)
}

async fn listen_if(address: Option<SocketAddr>) -> Result<Option<TcpListener>, StartError> {
    let Some(address) = address else { return Ok(None) };
    let listener = TcpListener::bind(address).await;
    listener.map(Some).map_err(|error| StartError::Listen(address, error))
}

fn address(listener: Option<&TcpListener>) -> Option<SocketAddr> {
    listener.and_then(|listener| listener.local_addr().ok())
}
