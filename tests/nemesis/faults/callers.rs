//! Callers at cross purposes: the same event many times at once, and subscriptions that
//! change while events flow.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hookward::grpc::pb;

use super::{Scene, millis, pause, secs};
use crate::cluster::OWNER;
use crate::command::run;
use crate::payload::payload;
use crate::target::Secret;
use crate::world::{migrate, new_secret, new_uuid};

const CALLERS: usize = 32;
const IDS: usize = 4;

impl Scene<'_> {
    pub(super) async fn repeat(&mut self) -> Result<(), String> {
        for round in 0..IDS {
            let id = format!("repeat-{}-{round}", self.number);
            let draft = (id.clone(), "visit.created".to_owned(), 300);
            let batch = self.world.draft(1, vec![draft]);
            let slots = self.world.replicas.len();
            let calls = (0..CALLERS)
                .map(|caller| self.world.api.publish(caller % slots, 1, batch.events.clone()));
            let begun = Instant::now();
            let answers = join_all(calls).await;
            let (mut new, mut ok) = (0, 0);
            for (caller, answer) in answers.iter().enumerate() {
                let Ok(results) = answer else { continue };
                self.world.acknowledged(&batch, caller % slots, results);
                ok += 1;
                new += results.iter().filter(|result| !result.duplicate).count();
            }
            if 1 < new || (ok == CALLERS && new != 1) {
                let what = format!("{id} was new to {new} of {ok} callers");
                self.world.ledger.broken(what);
            }
            self.count("stored more than once", new.saturating_sub(1), 0, begun);
            if 0 < ok {
                self.contradict(&id).await;
            }
        }
        Ok(())
    }

    /// Another content under an id that is taken is refused.
    async fn contradict(&mut self, id: &str) {
        let json = payload(id, "visit.created", 400);
        let other = pb::Event {
            id: id.to_owned(),
            r#type: "visit.created".to_owned(),
            payload: Some(pb::event::Payload::Json(json)),
            ..pb::Event::default()
        };
        let slot = self.any_slot();
        // A replica that is in trouble may say something else.
        if self.world.api.publish(slot, 1, vec![other]).await.is_ok() {
            self.world.ledger.broken(format!("{id} was taken with another content"));
        }
    }

    pub(super) async fn churn(&mut self) -> Result<(), String> {
        match self.rng.u8(0..3) {
            0 => self.pause_and_resume().await,
            1 => self.come_and_go().await,
            _ => self.rotate().await,
        }
        Ok(())
    }

    async fn pause_and_resume(&mut self) {
        let target = &self.cast.pausing;
        let id = target.state().id.clone();
        let organization = target.plan.organization;
        if self.world.api.pause(organization, &id).await.is_none() {
            return;
        }
        target.state().pauses.push((Instant::now(), None));
        pause(millis(self.rng.u64(2000..4000))).await;
        if let Some(pause) = target.state().pauses.last_mut() {
            pause.1 = Some(Instant::now());
        }
        self.world.api.resume(organization, &id).await;
    }

    async fn come_and_go(&mut self) {
        let Some(target) = self.world.subscribe(self.cast.passing, self.rng).await else { return };
        self.last(1500..3000).await;
        let id = target.state().id.clone();
        target.state().leaving = Some(Instant::now());
        if self.world.api.delete(target.plan.organization, &id).await.is_some() {
            target.state().left = Some(Instant::now());
        }
    }

    async fn rotate(&mut self) {
        let choice = self.rng.usize(0..self.cast.rotating.len());
        let target = &self.cast.rotating[choice];
        let overlap = if self.rng.bool() { secs(2) } else { Duration::ZERO };
        let secret = new_secret(target.plan.profile, self.rng);
        let (id, before) = {
            let mut state = target.state();
            let before = state.secrets.len();
            state.secrets.push(Secret { secret: secret.clone(), until: None });
            (state.id.clone(), before)
        };
        let request_id = new_uuid(self.rng);
        let organization = target.plan.organization;
        let rotated = self.world.api.rotate(organization, &id, &secret, overlap, request_id).await;
        if rotated.is_some() {
            let until = Instant::now() + overlap;
            let mut state = target.state();
            for old in &mut state.secrets[..before] {
                old.until.get_or_insert(until);
            }
        }
        // The old ones are gone before the next rotation.
        pause(overlap + secs(1)).await;
    }

    pub(super) async fn migrators(&mut self) -> Result<(), String> {
        let cluster = self.world.cluster.as_ref().ok_or("needs PostgreSQL")?;
        let name = format!("migrated_{}", self.number);
        let create = format!("CREATE DATABASE {name} OWNER {OWNER}");
        if cluster.sql(cluster.primary(), "postgres", &create).await.is_err() {
            // It is away just now, which is another fault's doing.
            return Ok(());
        }
        let url = |node| format!("postgres://{OWNER}@{}/{name}", cluster.address(node));
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_hookward"));
        child.args(["migrate", "--database-url", &url(cluster.primary())]).env_clear();
        child.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut child = child.spawn().map_err(|error| error.to_string())?;
        let other = url(cluster.primary());
        let other = tokio::spawn(async move { migrate(&other).await });
        self.last(0..250).await;
        // It may have ended by itself.
        let _ = child.kill();
        let _ = child.wait();
        // What became of this one depends on the other faults; the last word counts.
        let _ = other.await;
        let begun = Instant::now();
        while let Err(error) = migrate(&url(cluster.primary())).await {
            if secs(60) < begun.elapsed() {
                self.world.ledger.broken(format!("after a migrator was killed: {error}"));
                break;
            }
            pause(millis(300)).await;
        }
        let tables = "SELECT count(*) FROM pg_tables WHERE tablename IN ('event', 'due')";
        let mut psql = Ok(String::new());
        while begun.elapsed() < secs(60) {
            psql = cluster.sql(cluster.primary(), &name, tables).await;
            if psql.is_ok() {
                break;
            }
            pause(millis(300)).await;
        }
        if psql.as_deref() != Ok("2") {
            self.world.ledger.broken(format!("a migrated database has not its tables: {psql:?}"));
        }
        Ok(())
    }

    /// Runs a program that must succeed.
    pub(super) async fn must(&self, command: std::process::Command) -> Result<(), String> {
        run(command).await.map(drop)
    }
}
