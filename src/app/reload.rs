//! Other settings for a service that runs: all that was changed, or nothing of it.

use std::net::SocketAddr;

use super::{App, StartError, own_addresses};
use crate::config::Settings;
use crate::egress::{self, Egress};
use crate::permits::RateLimiter;
use crate::store::StoreError;

/// What can be changed besides the engine.
pub(super) struct Changeable {
    pub(super) way_out: WayOut,
    pub(super) egress: Egress,
    /// Counts calls that do not publish.
    pub(super) calls: RateLimiter,
}

/// What the way out depends on but for its settings, found at start.
pub(super) struct WayOut {
    /// Where this process is called.
    pub(super) listeners: Vec<SocketAddr>,
    /// Host and port of what the deployment is made of.
    pub(super) servers: Vec<(String, u16)>,
    /// Most connections that wait, which the limits of the process decide.
    pub(super) idle_in_all_max: usize,
    /// Where the canary's receiver is, if it has one here.
    pub(super) canary: Option<SocketAddr>,
}

/// Why the service goes on as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// What the settings name cannot be used.
    #[error(transparent)]
    Settings(#[from] StartError),
    /// The keys lack one that is in use, or nobody can tell.
    #[error(transparent)]
    Keys(#[from] StoreError),
}

impl WayOut {
    /// What may be called, and how. The rest of the deployment may not.
    ///
    /// # Errors
    ///
    /// When an address of the deployment is not found, or a certificate cannot be used.
    pub(super) async fn open(&self, mut settings: egress::Settings) -> Result<Egress, StartError> {
        settings.idle_in_all_max = self.idle_in_all_max;
        settings.canary = self.canary;
        let (listeners, servers) = (self.listeners.iter().copied(), self.servers.iter().cloned());
        let closed = own_addresses::close(&mut settings, listeners, servers);
        closed.await.map_err(StartError::OwnAddresses)?;
        Egress::new(settings).map_err(|error| StartError::Settings(error.to_string()))
    }
}

impl App {
    /// Takes up those of `changed` that can be while it runs, as `settings` have them. What is
    /// under way ends as it began; what begins after this goes by them.
    ///
    /// # Errors
    ///
    /// [`ReloadError`]: everything is as it was.
    pub async fn reload(
        &mut self,
        settings: Settings,
        changed: &[String],
    ) -> Result<(), ReloadError> {
        let is_changed = |begin: &str| changed.iter().any(|flag| flag.starts_with(begin));
        // All that can fail comes first.
        let egress = if is_changed("egress-") {
            Some(self.changeable.way_out.open(settings.egress).await?)
        } else {
            None
        };
        let (keys, profiles) = (is_changed("encryption-keys"), is_changed("profiles"));
        let (store, routing) = (&self.engine.store, &self.engine.routing);
        if keys {
            store.check_keyring(&settings.database.keyring).await?;
            store.use_keyring(settings.database.keyring);
        }
        if let Some(egress) = &egress {
            self.changeable.egress.become_another(egress);
        }
        if profiles {
            routing.use_profiles(settings.profiles);
        }
        if is_changed("max-publish-rate-") {
            self.engine.intake.set_rate(settings.intake.rate);
        }
        if is_changed("max-call-rate-") {
            self.changeable.calls.set(settings.call_rate);
        }
        if is_changed("max-in-flight-") || is_changed("auto-disable-") {
            self.engine.set_limits(settings.in_flight, settings.auto_disable);
        }
        self.grace = settings.grace;
        // Secrets that could not be read may be readable, and certificates good.
        if keys || profiles || is_changed("egress-ca") {
            routing.renew().await;
        }
        Ok(())
    }
}
