//! `hookward audit`: shows the audit log and checks that nobody has changed it. It works on
//! the database, so that it needs no server, and no trust in one.

use anyhow::bail;
use clap::{Args, Subcommand};

use super::Failure;
use super::api_key::written;
use crate::config::{DatabaseArguments, read_database};
use crate::domain::audit::{AuditEntry, Chain, ChainPoint, NewAuditEntry};
use crate::store::{AuditFilter, AuditPlace, FollowedChain, Store};

/// Entries read at a time.
const PAGE: usize = 1000;

/// What to do with the log.
#[derive(Debug, Subcommand)]
pub enum Arguments {
    /// Show entries, newest first
    List(List),
    /// Follow the chains, and tell the first entry that does not fit
    Verify(Verify),
}

/// Which entries.
#[derive(Args, Debug)]
pub struct List {
    #[command(flatten)]
    database: DatabaseArguments,
    /// Whose; * for those that belong to no organization
    #[arg(long, value_name = "ID", default_value = "*")]
    organization: String,
    /// At most so many
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
}

/// Which chains.
#[derive(Args, Debug)]
pub struct Verify {
    #[command(flatten)]
    database: DatabaseArguments,
    /// Whose; * for the one that belongs to no organization. Repeatable; all unless given
    #[arg(long, value_name = "ID")]
    organization: Vec<String>,
    /// A head as a server's log has told it, which must be part of the chain. Repeatable
    #[arg(long, value_name = "ID:NUMBER:HASH")]
    head: Vec<String>,
}

/// Does it.
///
/// # Errors
///
/// When the database cannot be used, or an entry does not fit.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments {
        Arguments::List(list) => self::list(list).await,
        Arguments::Verify(verify) => self::verify(verify).await,
    }
}

/// The entry of what somebody does on this command line. Who that is, is known by the user
/// that the process runs as.
pub(super) fn entry(command: &str) -> NewAuditEntry {
    NewAuditEntry {
        principal: "operator".to_owned(),
        credential_id: format!("uid:{}", rustix::process::getuid().as_raw()),
        ..NewAuditEntry::of_service(Chain::Deployment, command)
    }
}

async fn list(list: List) -> Result<(), Failure> {
    let chain = read_chain(&list.organization)?;
    let store = Store::visit(&read_database(&list.database)?).await?;
    let listed = list_chain(&store, &chain, list.limit.unwrap_or(usize::MAX)).await;
    store.close().await;
    listed
}

async fn list_chain(store: &Store, chain: &Chain, mut left: usize) -> Result<(), Failure> {
    let mut before = None;
    while 0 < left {
        let size = PAGE.min(left);
        let entries = store.audit_entries(chain, AuditFilter::default(), before, size).await?;
        for entry in &entries {
            super::say(&line(entry))?;
        }
        let Some(last) = entries.last().filter(|_| entries.len() == size) else { break };
        before = Some(AuditPlace { time: last.time, sequence: last.sequence });
        left -= size;
    }
    Ok(())
}

/// Number, time, principal, credential, peer, method, code, reason, objects, changed fields,
/// request id, whether it read payloads, number of calls: separated by tabs.
fn line(entry: &AuditEntry) -> String {
    let AuditEntry { entry, sequence, time, .. } = entry;
    let columns = [
        sequence.to_string(),
        written(*time),
        entry.principal.clone(),
        entry.credential_id.clone(),
        entry.peer.clone(),
        entry.method.clone(),
        entry.code.clone(),
        entry.reason.clone(),
        entry.object_ids.join(" "),
        entry.changed_fields.join(" "),
        entry.request_id.clone(),
        if entry.payload_read { "read" } else { "" }.to_owned(),
        entry.calls.to_string(),
    ];
    columns.map(|text| if text.is_empty() { "-".to_owned() } else { text }).join("\t")
}

async fn verify(verify: Verify) -> Result<(), Failure> {
    let noted = verify.head.iter().map(|text| read_head(text)).collect::<Result<Vec<_>, _>>()?;
    let named = verify.organization.iter().map(|text| read_chain(text));
    let mut chains = named.collect::<Result<Vec<_>, _>>()?;
    let store = Store::visit(&read_database(&verify.database)?).await?;
    let verified = async {
        if chains.is_empty() {
            chains = store.audit_chains().await?;
            // A chain that was noted and is gone altogether.
            chains.extend(noted.iter().map(|(chain, _)| chain.clone()));
            chains.sort_unstable();
            chains.dedup();
        }
        verify_chains(&store, &chains, &noted).await
    };
    let verified = verified.await;
    store.close().await;
    verified
}

async fn verify_chains(
    store: &Store,
    chains: &[Chain],
    noted: &[(Chain, ChainPoint)],
) -> Result<(), Failure> {
    let mut broken = 0;
    for chain in chains {
        let own = noted.iter().filter(|(of, _)| of == chain).map(|(_, point)| *point);
        let own: Vec<ChainPoint> = own.collect();
        let followed = store.follow_audit_chain(chain, &own).await?;
        broken += usize::from(followed.misfit.is_some());
        super::say(&verdict(chain, &followed))?;
        if let Some(purged) = followed.head.as_ref().map(|head| head.purged.sequence) {
            for point in own.iter().filter(|point| point.sequence < purged) {
                super::say(&format!("{chain}\tentry {} was purged since", point.sequence))?;
            }
        }
    }
    if 0 < broken {
        return Err(anyhow::anyhow!("{broken} of {} chains do not fit", chains.len()).into());
    }
    Ok(())
}

/// One line: the chain, what became of it, how many entries there are, and where it is.
fn verdict(chain: &Chain, followed: &FollowedChain) -> String {
    let fits = format!("{} entries fit", followed.entries);
    let purged = match &followed.head {
        Some(head) if 0 < head.purged.sequence => {
            let time = written(head.purged_time);
            format!(", those up to {} of {time} were purged", head.purged.sequence)
        }
        Some(_) | None => String::new(),
    };
    match (&followed.misfit, &followed.head) {
        (Some((sequence, time, misfit)), _) => {
            let time = time.map(|time| format!(" of {}", written(time))).unwrap_or_default();
            format!("{chain}\tBROKEN at entry {sequence}{time}: {misfit}\t{fits}{purged}")
        }
        (None, Some(head)) => format!("{chain}\tok\t{fits}{purged}\t{chain}:{}", head.point),
        (None, None) => format!("{chain}\tempty"),
    }
}

fn read_chain(text: &str) -> anyhow::Result<Chain> {
    match text.parse() {
        Ok(chain) => Ok(chain),
        Err(why) => bail!("--organization: {why}"),
    }
}

fn read_head(text: &str) -> anyhow::Result<(Chain, ChainPoint)> {
    let Some((chain, point)) = text.split_once(':') else {
        bail!("--head: as the log tells it: an organization, a number and a hash");
    };
    let (chain, point) = (chain.parse::<Chain>(), point.parse::<ChainPoint>());
    match (chain, point) {
        (Ok(chain), Ok(point)) => Ok((chain, point)),
        (Err(why), _) | (_, Err(why)) => bail!("--head: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::audit::Misfit;
    use crate::domain::timestamp::Timestamp;
    use crate::store::AuditHead;

    fn followed() -> FollowedChain {
        let head = AuditHead {
            chain: Chain::stored("clinic"),
            point: ChainPoint { sequence: 7, hash: [0xab; 32] },
            update_time: Timestamp(9),
            purged: ChainPoint { sequence: 2, hash: [1; 32] },
            purged_time: Timestamp(1_750_000_000_000_000),
        };
        FollowedChain { head: Some(head), entries: 5, misfit: None }
    }

    #[test]
    fn a_verdict_shows_the_head_that_can_be_noted() {
        let said = verdict(&Chain::stored("clinic"), &followed());
        let (start, head) = said.rsplit_once('\t').expect("columns");
        let purged = "those up to 2 of 2025-06-15T15:06:40.000Z were purged";
        assert_eq!(start, format!("clinic\tok\t5 entries fit, {purged}"));
        let (chain, point) = read_head(head).expect("it can be given back");
        assert_eq!((chain, point.sequence), (Chain::stored("clinic"), 7));
    }

    #[test]
    fn a_verdict_names_the_first_entry_that_does_not_fit() {
        let misfit = Some((4, Some(Timestamp(1_750_000_000_000_000)), Misfit::Altered));
        let said = verdict(&Chain::Deployment, &FollowedChain { misfit, ..followed() });
        assert!(
            said.starts_with("*\tBROKEN at entry 4 of 2025-06-15T15:06:40.000Z: it was altered\t")
        );
    }

    #[test]
    fn heads_that_cannot_be_read_are_refused() {
        for wrong in ["clinic", "clinic:1", "a b:1:00", ":1:00"] {
            assert!(read_head(wrong).is_err(), "{wrong}");
        }
    }
}
