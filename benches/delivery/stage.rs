//! What every scenario plays on: one service and one load generator.

use anyhow::Context as _;

use crate::audience::Audience;
use crate::database::Database;
use crate::database::Store;
use crate::fitting::Credentials;
use crate::fitting::Fitting;
use crate::measure::Bench;
use crate::options::Options;
use crate::options::Role;
use crate::protocol::Order;
use crate::protocol::Subscribing;
use crate::service::Service;
use crate::worker::Worker;

/// A service with an empty database, and who publishes to it.
pub(crate) struct Stage {
    pub(crate) service: Service,
    pub(crate) load: Worker,
}

impl Stage {
    /// Sets it up; `None`: that store is not installed.
    pub(crate) fn set(bench: &Bench, store: Store) -> anyhow::Result<Option<Stage>> {
        Stage::set_with(bench, store, Fitting::Off)
    }

    /// The same with a service that is fitted with something.
    pub(crate) fn set_with(
        bench: &Bench,
        store: Store,
        fitting: Fitting,
    ) -> anyhow::Result<Option<Stage>> {
        let service = Service::start(&bench.options, store, fitting, bench.authority())?;
        let Some(service) = service else { return Ok(None) };
        let load = load_for(bench, &service)?;
        Ok(Some(Stage { service, load }))
    }

    /// Makes an audience's subscriptions, at the receiver's plain door.
    pub(crate) fn subscribe(&mut self, bench: &Bench, audience: Audience) -> anyhow::Result<()> {
        self.subscribe_at(audience.at("http", bench.door()?))
    }

    /// Makes subscriptions.
    pub(crate) fn subscribe_at(&mut self, wanted: Subscribing) -> anyhow::Result<()> {
        self.load.tell(&Order::Subscribe(wanted)).context("subscribing")
    }

    /// Stops the service, lets `work` have its database, and goes on.
    pub(crate) fn restart_after(
        &mut self,
        bench: &Bench,
        work: impl FnOnce(&Database) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.service.restart_after(work)?;
        self.load = load_for(bench, &self.service)?;
        Ok(())
    }

    /// Lets so many replicas of the service run, to all of which is published.
    pub(crate) fn grow_to(&mut self, bench: &Bench, count: usize) -> anyhow::Result<()> {
        self.service.grow_to(count)?;
        self.load = load_for(bench, &self.service)?;
        Ok(())
    }
}

fn load_for(bench: &Bench, service: &Service) -> anyhow::Result<Worker> {
    load(&bench.options, &service.addresses, service.credentials.as_ref())
}

/// A load generator that is connected to these addresses.
pub(crate) fn load(
    options: &Options,
    addresses: &[String],
    credentials: Option<&Credentials>,
) -> anyhow::Result<Worker> {
    let connections = options.grpc_connections.to_string();
    let addresses = addresses.join(",");
    let mut arguments = vec!["--service", &addresses, "--grpc-connections", &connections];
    if let Some(Credentials { authority, api_key }) = credentials {
        arguments.extend(["--service-ca", authority, "--api-key", api_key]);
    }
    Worker::start(Role::Load, &arguments)
}
