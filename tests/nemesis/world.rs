//! Everything that takes part in a run, and what faults do to it.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fastrand::Rng;
use hookward::grpc::pb;

use crate::api::Api;
use crate::authority::AUTHORITY;
use crate::cluster::{Cluster, DATABASE, OWNER};
use crate::command::{Watchdog, run};
use crate::ledger::Ledger;
use crate::machine::Machine;
use crate::nameserver::Nameserver;
use crate::options::Store;
use crate::receiver::{ALLOWED, FORBIDDEN, Ports, address_for};
use crate::relay::{Mode as LinkMode, Relay};
use crate::replica::Replica;
use crate::target::{Mood, Plan, Purpose, Secret, Target, Targets};

/// Replicas on PostgreSQL.
const REPLICAS: usize = 3;
/// How long a replica may take to be ready, on a machine that is busy with faults.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(40);
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub(crate) struct World {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) targets: Arc<Targets>,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) api: Api,
    pub(crate) machine: Machine,
    /// `None` on SQLite.
    pub(crate) cluster: Option<Cluster>,
    pub(crate) names: Names,
    pub(crate) folder: PathBuf,
    /// Whether the folder of the SQLite file is a small file system of its own.
    pub(crate) own_disk: Option<Watchdog>,
    /// Whether publishers begin no further call.
    held: AtomicBool,
    ports: Ports,
}

/// What the name servers answer.
#[derive(Clone, Default)]
pub(crate) struct Names(Arc<AtomicU8>);

/// See [`Names`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameMood {
    Well = 0,
    /// No such name.
    Missing = 1,
    /// An address that may not be called.
    Forbidden = 2,
}

impl Names {
    pub(crate) fn set(&self, mood: NameMood) {
        self.0.store(mood as u8, Ordering::SeqCst);
    }

    /// A name server that leads the replica of this slot to the receivers.
    async fn serve(&self, slot: usize) -> Nameserver {
        let mood = Arc::clone(&self.0);
        Nameserver::answering(move |_, _| -> Vec<Ipv4Addr> {
            match mood.load(Ordering::SeqCst) {
                1 => Vec::new(),
                2 => vec![FORBIDDEN],
                _ => vec![address_for(slot)],
            }
        })
        .await
    }
}

impl World {
    /// Sets everything up, and has the replicas serve.
    pub(crate) async fn build(store: Store, folder: &Path) -> Result<World, String> {
        let (ledger, targets) = (Arc::new(Ledger::default()), Arc::new(Targets::default()));
        let slots = match store {
            Store::Postgres => REPLICAS,
            Store::Sqlite => 1,
        };
        let ports = crate::receiver::start(Arc::clone(&ledger), Arc::clone(&targets), slots).await;
        let cluster = match store {
            Store::Postgres => Some(Cluster::start().await?),
            Store::Sqlite => None,
        };
        let disk = folder.join("disk");
        let own_disk = if cluster.is_none() { own_disk(&disk).await? } else { None };
        let names = Names::default();
        let mut replicas = Vec::new();
        for slot in 0..slots {
            let link = Relay::open().await;
            if let Some(cluster) = &cluster {
                link.point_at(cluster.address(cluster.primary()));
            }
            let url = match cluster {
                Some(_) => format!("postgres://{OWNER}@{}/{DATABASE}", link.address()),
                None => format!("sqlite:{}", disk.join("hookward.db").display()),
            };
            let nameserver = names.serve(slot).await;
            let arguments = arguments(folder, &url, &nameserver.address());
            replicas.push(Replica::new(slot, link, arguments, folder).await);
        }
        if let Some(cluster) = &cluster {
            migrate(&cluster.url()).await?;
        }
        let api = Api::new(&replicas, Arc::clone(&ledger));
        let machine = Machine::watch(folder);
        let folder = folder.to_owned();
        let world = World {
            ledger,
            targets,
            replicas,
            api,
            machine,
            cluster,
            names,
            folder,
            own_disk,
            held: AtomicBool::new(false),
            ports,
        };
        for replica in &world.replicas {
            replica.start(&[], START_LIMIT).await?;
        }
        Ok(world)
    }

    /// Makes a target and its subscription. Requests may come from here on.
    pub(crate) async fn subscribe(&self, plan: Plan, rng: &mut Rng) -> Option<Arc<Target>> {
        let target = self.targets.add(plan);
        let secret = new_secret(plan.profile, rng);
        target.state().secrets.push(Secret { secret: secret.clone(), until: None });
        let waits = plan.waits.iter().map(|millis| span(Duration::from_millis(*millis)));
        let subscription = pb::Subscription {
            url: self.ports.url(&target),
            profile: plan.profile.to_owned(),
            event_patterns: vec![plan.pattern.to_owned()],
            retry_policy: Some(pb::RetryPolicy { waits: waits.collect() }),
            signing_enabled: Some(true),
            attempt_timeout: Some(span(plan.timeout)),
            max_in_flight: plan.in_flight,
            ..pb::Subscription::default()
        };
        let request_id = new_uuid(rng);
        let created = self.api.create(plan.organization, subscription, &secret, request_id).await;
        let id = created?.subscription.expect("always there").id;
        {
            let mut state = target.state();
            state.id = id;
            state.since = Some(Instant::now());
        }
        Some(target)
    }

    /// A replica for a call: most often one that is ready, as a load balancer chooses.
    pub(crate) async fn choose(&self, rng: &mut Rng) -> usize {
        let slot = rng.usize(0..self.replicas.len());
        if rng.u8(0..20) == 0 || self.replicas[slot].ready().await {
            return slot;
        }
        rng.usize(0..self.replicas.len())
    }

    /// Holds the publishers, or lets them go on.
    pub(crate) fn hold_publishers(&self, held: bool) {
        self.held.store(held, Ordering::SeqCst);
    }

    pub(crate) fn holds_publishers(&self) -> bool {
        self.held.load(Ordering::SeqCst)
    }

    /// Whether an organization has targets that come and go.
    pub(crate) fn has_passing(&self, organization: usize) -> bool {
        let passing = |target: &Arc<Target>| {
            target.plan.organization == organization && target.plan.purpose == Purpose::Passing
        };
        self.targets.all().iter().any(passing)
    }

    /// Waits until every replica is ready.
    pub(crate) async fn all_ready(&self, limit: Duration) -> bool {
        let begin = Instant::now();
        for replica in &self.replicas {
            while !replica.ready().await {
                if limit < begin.elapsed() {
                    return false;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        true
    }

    /// Notes replicas that ended although nobody asked them to, and starts them again.
    pub(crate) async fn look_after(&self) {
        for replica in &self.replicas {
            let Some(status) = replica.ended() else { continue };
            let slot = replica.slot;
            self.ledger.broken(format!("replica {slot} ended by itself: {status}"));
            if let Err(error) = replica.start(&[], START_LIMIT).await {
                self.ledger.broken(error);
            }
        }
    }

    /// Points every replica at the node that takes writes.
    pub(crate) fn repoint(&self) {
        let Some(cluster) = &self.cluster else { return };
        for replica in &self.replicas {
            replica.database.point_at(cluster.address(cluster.primary()));
        }
    }

    /// Takes every fault back.
    pub(crate) async fn heal(&self) {
        self.names.set(NameMood::Well);
        self.targets.all().iter().for_each(|target| target.set(Mood::Well));
        for replica in &self.replicas {
            replica.database.set(LinkMode::Pass);
            replica.calls.set(LinkMode::Pass);
            if !replica.is_up()
                && let Err(error) = replica.start(&[], START_LIMIT).await
            {
                self.ledger.broken(error);
            }
        }
        self.look_after().await;
        if !self.all_ready(START_LIMIT).await {
            self.ledger.broken("with every fault gone, a replica does not get ready");
        }
    }
}

impl Cluster {
    /// For programs that need no link that can be broken.
    pub(crate) fn url(&self) -> String {
        format!("postgres://{OWNER}@{}/{DATABASE}", self.address(self.primary()))
    }
}

/// `hookward migrate`.
pub(crate) async fn migrate(url: &str) -> Result<String, String> {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hookward"));
    command.args(["migrate", "--database-url", url]).env_clear();
    run(command).await
}

/// A secret of the form that a profile wants.
pub(crate) fn new_secret(profile: &str, rng: &mut Rng) -> String {
    let letters: String = (0..32).map(|_| rng.alphanumeric()).collect();
    if profile != "standard" {
        return letters;
    }
    format!("whsec_{}", STANDARD.encode(letters))
}

/// A random UUID by the run's seed.
pub(crate) fn new_uuid(rng: &mut Rng) -> String {
    uuid::Builder::from_random_bytes(rng.u128(..).to_be_bytes()).into_uuid().to_string()
}

fn span(span: Duration) -> prost_types::Duration {
    span.try_into().expect("a short span")
}

fn arguments(folder: &Path, url: &str, nameserver: &str) -> Vec<String> {
    let authority = folder.join("authority.pem");
    // Once: replicas that run look at it now and then, and must not find half of it.
    if !authority.exists() {
        std::fs::write(&authority, AUTHORITY.pem()).expect("the folder is ours");
    }
    let authority = authority.display().to_string();
    [
        ["--database-url", url],
        ["--egress-allow", ALLOWED],
        ["--egress-nameserver", nameserver],
        ["--egress-ca", &authority],
        ["--shutdown-grace", "10s"],
    ]
    .concat()
    .into_iter()
    .map(str::to_owned)
    .collect()
}

/// A small file system in memory, so that it can be filled; `None` where this process may
/// not make one.
async fn own_disk(folder: &Path) -> Result<Option<Watchdog>, String> {
    std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
    let mut mount = std::process::Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=384m", "tmpfs"]).arg(folder);
    if let Err(error) = run(mount).await {
        eprintln!("the disk cannot be filled in this run, mount says: {error}");
        return Ok(None);
    }
    let shell = std::process::Command::new("sh");
    Ok(Some(Watchdog::start(shell, r#"umount -l "$1""#, &[folder])))
}
