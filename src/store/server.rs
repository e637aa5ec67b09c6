//! Connections to a PostgreSQL server, each trusted only for as long as it answers.
//!
//! They are lent to two sides: the engine has connections of its own, so that commits,
//! settlements and the lease never stand in line behind callers' reads. A connection
//! that fell silent, broke, or leads to a server that only reads is closed and never
//! lent again, and every idle one with it: what broke one has most likely broken all.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sea_orm::sqlx::postgres::{PgConnectOptions, PgConnection};
use sea_orm::sqlx::{self, Connection, Row};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use super::lent::Lent;
use super::row_security::ApiRole;
use crate::metrics::Pool;

/// How long somebody waits for a connection, opening one included.
const ACQUIRE: Duration = Duration::from_secs(1);
/// How long somebody waits for one that others have, of a server that takes no more.
const SHARED: Duration = Duration::from_millis(250);
/// A statement that takes longer is looked after: is it slow, or is it cut off?
const PATIENCE: Duration = Duration::from_millis(500);
/// A statement is given up when for this long neither an answer came nor the server
/// was seen to work on it.
const SILENCE: Duration = Duration::from_millis(1250);
/// How much longer one is waited for once another connection that is as old fell silent,
/// even if the server works on it: its answer would come the same way.
const DOUBTED: Duration = Duration::from_millis(100);
/// How much longer somebody waits for a connection once one fell silent: for a new one, over
/// a slow network as well, if the server can still be reached.
const OUT_OF_REACH: Duration = Duration::from_millis(250);
/// Longest statement. The server ends one itself a second earlier, unless it waits for a
/// standby to have its commit.
const LONGEST: Duration = Duration::from_secs(11);
/// What a look at the server shows is good for this long.
const LOOK_LASTS: Duration = Duration::from_millis(250);
/// A connection that was idle for longer is closed: firewalls forget such ones
/// without a word to either end.
const IDLE_MAX: Duration = Duration::from_mins(1);
/// Age at which a connection is replaced, so that a server's memory of it stays small.
const AGE_MAX: Duration = Duration::from_mins(30);
/// Connections that are the engine's alone, one for each task that must not wait:
/// two commits, settlements, claims, the routing poll, the janitor.
const ENGINE_CONNECTIONS: u32 = 6;

/// Who a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Engine,
    Callers,
    /// Work of the server's own in callers' places, since it may take long.
    Upkeep,
    /// Somebody who keeps it: such a connection is nobody else's place, and is never lent
    /// again.
    Apart,
}

/// A server, and the connections to it.
pub(super) struct Server {
    options: PgConnectOptions,
    /// What binds work to one organization; `None`: nothing does.
    api_role: Option<ApiRole>,
    engine: Stock,
    callers: Stock,
    /// Raised when connections are doubted: those of an earlier one are closed.
    generation: watch::Sender<Generation>,
    look: tokio::sync::Mutex<Option<Look>>,
}

/// How often connections were doubted.
#[derive(Clone, Copy, Debug, Default)]
struct Generation {
    now: u64,
    /// The first of which none has fallen silent.
    heard: u64,
}

/// What broke a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// It was closed, or cannot be used: others tell the same by themselves.
    Closed,
    /// It said nothing: nor will the others.
    Silent,
}

/// The connections of one side.
struct Stock {
    places: Arc<Semaphore>,
    size: usize,
    waits: AtomicU64,
    waited_micros: AtomicU64,
    /// In the order in which they came back; the last is lent first.
    idle: Mutex<Vec<(Session, Instant)>>,
    /// Tells one who waits that a connection came back.
    returned: Notify,
}

/// One connection.
pub(super) struct Session {
    pub(super) connection: PgConnection,
    /// Process number of its backend.
    pub(super) backend: i32,
    pub(super) generation: u64,
    opened: Instant,
}

/// What the server was working on at a time.
struct Look {
    began: Instant,
    at_work: HashSet<i32>,
}

impl Server {
    /// At most `connections` (2 or more) are open at once, half of them but no more
    /// than six for the engine alone. Opens none yet.
    pub(super) fn new(
        options: PgConnectOptions,
        connections: u32,
        api_role: Option<ApiRole>,
    ) -> Server {
        let engine = ENGINE_CONNECTIONS.min(connections / 2).max(1);
        Server {
            options,
            api_role,
            engine: Stock::new(engine),
            callers: Stock::new(connections.saturating_sub(engine).max(1)),
            generation: watch::Sender::default(),
            look: tokio::sync::Mutex::new(None),
        }
    }

    pub(super) fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    pub(super) fn api_role(&self) -> Option<&ApiRole> {
        self.api_role.as_ref()
    }

    /// Lends a connection, an idle one or a new one.
    ///
    /// # Errors
    ///
    /// `PoolTimedOut` when there is none within a second, or soon after another fell silent;
    /// what keeps a new one from being opened.
    pub(super) async fn lend(self: &Arc<Self>, side: Side) -> Result<Lent, sqlx::Error> {
        let heard = self.generation.borrow().heard;
        let lending = async {
            let Some(stock) = self.stock(side) else {
                return Ok(Lent::new(Arc::clone(self), side, self.open().await?, None));
            };
            let place = stock.place().await?;
            let session = match stock.take() {
                Some(session) => session,
                None => self.open_or_share(stock).await?,
            };
            Ok(Lent::new(Arc::clone(self), side, session, Some(place)))
        };
        tokio::select! {
            biased;
            lent = timeout(ACQUIRE, lending) => lent.unwrap_or(Err(sqlx::Error::PoolTimedOut)),
            () = self.silence(heard, OUT_OF_REACH) => Err(sqlx::Error::PoolTimedOut),
        }
    }

    /// A new one, or where the server takes no more the next that comes back to `stock`.
    async fn open_or_share(&self, stock: &Stock) -> Result<Session, sqlx::Error> {
        match self.open().await {
            Err(error) if is_full(&error) => {
                let _waiting = stock.waiting();
                timeout(SHARED, stock.next()).await.map_err(|_| error)
            }
            opened => opened,
        }
    }

    /// In as few round trips as can be: a slow network costs each of them.
    async fn open(&self) -> Result<Session, sqlx::Error> {
        let mut connection = PgConnection::connect_with(&self.options).await?;
        let sql = "SELECT pg_backend_pid() AS backend,
            current_setting('transaction_read_only')::bool AS read_only";
        let row = sqlx::raw_sql(sql).fetch_one(&mut connection).await?;
        if row.try_get("read_only")? {
            // A standby, or an old primary after a failover: it answers, and never
            // takes a write.
            return Err(sqlx::Error::Io(io::ErrorKind::ReadOnlyFilesystem.into()));
        }
        let backend = row.try_get("backend")?;
        // Only now: it has proved that the server is there.
        let generation = self.generation.borrow().now;
        Ok(Session { connection, backend, generation, opened: Instant::now() })
    }

    /// How the engine's connections are used, and the callers'.
    pub(super) fn pools(&self) -> [Pool; 2] {
        [self.engine.pool(), self.callers.pool()]
    }

    /// Takes a connection back that is ready for the next statement.
    pub(super) fn take_back(&self, side: Side, session: Session) {
        let stock = self.stock(side).filter(|_| self.is_current(&session));
        if let Some(stock) = stock
            && session.opened.elapsed() < AGE_MAX
        {
            stock.put(session);
        }
    }

    /// Whether nothing that was open with `session` has broken since.
    pub(super) fn is_current(&self, session: &Session) -> bool {
        session.generation == self.generation.borrow().now
    }

    /// `session` is broken: closes every one that is idle, or comes back, and is as old.
    /// Later ones have proved since that the server is there.
    pub(super) fn doubt(&self, session: &Session, doubt: Doubt) {
        let mut raised = false;
        self.generation.send_if_modified(|generation| {
            raised = generation.now == session.generation;
            generation.now += u64::from(raised);
            let silent = doubt == Doubt::Silent && generation.heard <= session.generation;
            if silent {
                generation.heard = session.generation + 1;
            }
            raised || silent
        });
        if raised {
            self.engine.clear();
            self.callers.clear();
        }
    }

    /// Closes what is idle, and lends no more.
    pub(super) fn close(&self) {
        for stock in [&self.engine, &self.callers] {
            stock.places.close();
            stock.clear();
        }
    }

    /// Waits for the `answer` to a statement that `backend` is to execute, over a connection
    /// of this `generation`. A statement that is merely slow is waited for, since it may
    /// have been done all the same. Given up soon is one that the server does not know of,
    /// or that no server can be asked about, and one whose connection is as old as another
    /// that has fallen silent.
    ///
    /// # Errors
    ///
    /// Those of `answer`; when it was given up, an input and output error of the kind
    /// `TimedOut`, or `Interrupted` after [`LONGEST`]: it may still be executed.
    pub(super) async fn answered<T>(
        &self,
        (backend, generation): (i32, u64),
        answer: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        let began = Instant::now();
        let mut heard = began;
        let mut answer = pin!(answer);
        if let Ok(answered) = timeout(PATIENCE, &mut answer).await {
            return answered;
        }
        let mut doubted = pin!(self.silence(generation, DOUBTED));
        loop {
            let left = SILENCE.saturating_sub(heard.elapsed());
            let at_work = tokio::select! {
                biased;
                answered = &mut answer => return answered,
                at_work = timeout(left, self.is_at_work(backend, began)) => at_work,
                () = &mut doubted => return Err(silent()),
            };
            if at_work == Ok(true) {
                heard = Instant::now();
            }
            if SILENCE <= heard.elapsed() {
                return Err(silent());
            }
            if LONGEST <= began.elapsed() {
                // Nobody knows how long; and it says nothing about other connections.
                return Err(sqlx::Error::Io(io::ErrorKind::Interrupted.into()));
            }
            let left = SILENCE.saturating_sub(heard.elapsed());
            tokio::select! {
                biased;
                answered = &mut answer => return answered,
                () = tokio::time::sleep(PATIENCE.min(left)) => {}
                () = &mut doubted => return Err(silent()),
            }
        }
    }

    /// Ends `grace` after a connection of this generation, or a later one, fell silent.
    async fn silence(&self, generation: u64, grace: Duration) {
        let mut changes = self.generation.subscribe();
        // It cannot fail: the other end is here.
        let _ = changes.wait_for(|now| generation < now.heard).await;
        tokio::time::sleep(grace).await;
    }

    /// Whether the server works on the statement that `backend` was sent at `since`.
    async fn is_at_work(&self, backend: i32, since: Instant) -> bool {
        let asked = Instant::now();
        let mut look = self.look.lock().await;
        // One that began while this waited for it is as good as one of its own.
        let good = |look: &Look| since <= look.began && asked <= look.began + LOOK_LASTS;
        if let Some(look) = look.as_ref().filter(|look| good(look)) {
            return look.at_work.contains(&backend);
        }
        let began = Instant::now();
        match self.backends_at_work().await {
            Ok(at_work) => look.insert(Look { began, at_work }).at_work.contains(&backend),
            // It has no connection left for the question, so it is there and busy.
            Err(sqlx::Error::Database(error)) => error.code().as_deref() == Some("53300"),
            Err(_) => false,
        }
    }

    /// The backends that execute a statement. Without `track_activities` nobody can
    /// tell, and all count.
    async fn backends_at_work(&self) -> Result<HashSet<i32>, sqlx::Error> {
        let mut connection = self.open().await?.connection;
        let sql = "SELECT pid FROM pg_stat_activity
            WHERE usename = current_user AND state IN ('active', 'disabled')";
        let rows = sqlx::raw_sql(sql).fetch_all(&mut connection).await?;
        rows.iter().map(|row| row.try_get("pid")).collect()
    }

    fn stock(&self, side: Side) -> Option<&Stock> {
        match side {
            Side::Engine => Some(&self.engine),
            Side::Callers | Side::Upkeep => Some(&self.callers),
            Side::Apart => None,
        }
    }
}

/// Shows no option: one of them is the password.
impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Server")
            .field("generation", &*self.generation.borrow())
            .finish_non_exhaustive()
    }
}

impl Stock {
    fn new(places: u32) -> Stock {
        let size = places as usize;
        Stock {
            places: Arc::new(Semaphore::new(size)),
            size,
            waits: AtomicU64::new(0),
            waited_micros: AtomicU64::new(0),
            idle: Mutex::default(),
            returned: Notify::new(),
        }
    }

    /// A place, at once or when there is one.
    async fn place(&self) -> Result<OwnedSemaphorePermit, sqlx::Error> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(place);
        }
        let _waiting = self.waiting();
        let places = Arc::clone(&self.places);
        places.acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)
    }

    /// Counts one who waits from now on.
    fn waiting(&self) -> Waiting<'_> {
        self.waits.fetch_add(1, Ordering::Relaxed);
        Waiting { stock: self, began: Instant::now() }
    }

    fn pool(&self) -> Pool {
        Pool {
            in_use: self.size.saturating_sub(self.places.available_permits()),
            size: self.size,
            waits: self.waits.load(Ordering::Relaxed),
            waited: Duration::from_micros(self.waited_micros.load(Ordering::Relaxed)),
        }
    }

    /// The next that is idle.
    async fn next(&self) -> Session {
        loop {
            if let Some(session) = self.take() {
                return session;
            }
            self.returned.notified().await;
        }
    }

    /// The one that was used last; `None` also when it has been idle for too long, since
    /// the others were so for longer.
    fn take(&self) -> Option<Session> {
        let mut idle = self.idle();
        let (session, since) = idle.pop()?;
        if IDLE_MAX <= since.elapsed() {
            idle.clear();
            return None;
        }
        Some(session)
    }

    fn put(&self, session: Session) {
        let mut idle = self.idle();
        idle.retain(|(_, since)| since.elapsed() < IDLE_MAX);
        idle.push((session, Instant::now()));
        self.returned.notify_one();
    }

    fn clear(&self) {
        self.idle().clear();
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Session, Instant)>> {
        // A list of whole connections has no half-written state.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who waits for a connection. It counts however it ends, also where it is given up.
struct Waiting<'a> {
    stock: &'a Stock,
    began: Instant,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let micros = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.stock.waited_micros.fetch_add(micros, Ordering::Relaxed);
    }
}

/// Whether the server is there and has no place (`too_many_connections`).
fn is_full(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    error.code().as_deref() == Some("53300")
}

/// No answer in time.
fn silent() -> sqlx::Error {
    sqlx::Error::Io(io::ErrorKind::TimedOut.into())
}
