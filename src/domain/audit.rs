//! The audit log's entries: who did what to which object, never what it held.
//!
//! The entries of an organization are one chain: each holds the hash of the one before and
//! its own, over everything that it says. So whoever changes, takes out or puts in an entry
//! must make all later ones anew, and the head that somebody else has noted tells even that.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use super::id::OrganizationId;
use super::timestamp::Timestamp;

/// Of what is hashed; another layout gets another number.
const LAYOUT: &[u8] = b"hookward audit entry 1";
/// Characters of an object's id: as long as the longest id there is.
const OBJECT_CHARS_MAX: usize = 128;
/// How the deployment's own chain is written, where a name must stand.
const DEPLOYMENT: &str = "*";

/// Whose chain an entry is in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Chain {
    /// The deployment's own: API keys, and calls of which it is not known that they came
    /// from somebody who may act for an organization.
    Deployment,
    /// An organization's.
    Organization(OrganizationId),
}

impl Chain {
    /// For storage: empty for the deployment's.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Chain::Deployment => "",
            Chain::Organization(organization) => organization.as_str(),
        }
    }

    /// As [`Chain::key`] told.
    #[must_use]
    pub fn stored(key: &str) -> Chain {
        match key {
            "" => Chain::Deployment,
            name => Chain::Organization(OrganizationId::stored(name)),
        }
    }
}

/// The name of the organization, or `*`.
impl fmt::Display for Chain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Chain::Deployment => DEPLOYMENT,
            Chain::Organization(organization) => organization.as_str(),
        })
    }
}

impl FromStr for Chain {
    type Err = String;

    fn from_str(text: &str) -> Result<Chain, String> {
        if text == DEPLOYMENT {
            return Ok(Chain::Deployment);
        }
        let organization = OrganizationId::parse(text);
        organization.map(Chain::Organization).map_err(|why| why.to_string())
    }
}

/// What is known of an entry before it has its place in a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAuditEntry {
    /// Whose it is.
    pub chain: Chain,
    /// Who did it; empty: nobody knows.
    pub principal: String,
    /// The id of what the caller showed, also where it was refused; no secret.
    pub credential_id: String,
    /// Where the call came from.
    pub peer: String,
    /// What was called, such as `hookward.v1.EventService/GetEvent`. Empty where calls are
    /// counted together.
    pub method: String,
    /// The public ids of what it was about.
    pub object_ids: Vec<String>,
    /// How the call was answered, such as `OK` or `PERMISSION_DENIED`.
    pub code: String,
    /// Why it was refused, such as `SCOPE_MISSING`; empty when it was not.
    pub reason: String,
    /// Names of what it changed; never a value.
    pub changed_fields: Vec<String>,
    /// Under which id the service's own log tells of the call.
    pub request_id: String,
    /// Whether the answer held payloads or response bodies, or would have.
    pub payload_read: bool,
    /// How many calls this entry stands for: 1, or more where refused ones were counted.
    pub calls: u32,
}

impl NewAuditEntry {
    /// Something that the service did of itself.
    #[must_use]
    pub fn of_service(chain: Chain, method: &str) -> NewAuditEntry {
        NewAuditEntry {
            chain,
            principal: "hookward".to_owned(),
            credential_id: String::new(),
            peer: String::new(),
            method: method.to_owned(),
            object_ids: Vec::new(),
            code: "OK".to_owned(),
            reason: String::new(),
            changed_fields: Vec::new(),
            request_id: String::new(),
            payload_read: false,
            calls: 1,
        }
    }

    /// The same for a call that left everything as it was.
    #[must_use]
    pub fn without_change(&self) -> NewAuditEntry {
        NewAuditEntry { changed_fields: Vec::new(), ..self.clone() }
    }

    fn hash(&self, sequence: i64, time: Timestamp, previous: &[u8; 32]) -> [u8; 32] {
        let mut digest = Sha256::new();
        // Each part with its length, so that no two entries write the same bytes.
        let mut part = |bytes: &[u8]| {
            digest.update((bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        };
        part(LAYOUT);
        part(previous);
        part(self.chain.key().as_bytes());
        part(&sequence.to_le_bytes());
        part(&time.0.to_le_bytes());
        for text in [&self.principal, &self.credential_id, &self.peer, &self.method] {
            part(text.as_bytes());
        }
        for list in [&self.object_ids, &self.changed_fields] {
            part(&(list.len() as u64).to_le_bytes());
            for one in list {
                part(one.as_bytes());
            }
        }
        for text in [&self.code, &self.reason, &self.request_id] {
            part(text.as_bytes());
        }
        part(&[u8::from(self.payload_read)]);
        part(&self.calls.to_le_bytes());
        digest.finalize().into()
    }
}

/// Whether a caller's text has the form of an id, so that it may be kept whoever sent it.
#[must_use]
pub fn is_object_id(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_:-./".contains(&byte);
    (1..=OBJECT_CHARS_MAX).contains(&text.len()) && text.bytes().all(plain)
}

/// An entry in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// What it says.
    pub entry: NewAuditEntry,
    /// Its place in the chain, from 1 and without gaps.
    pub sequence: i64,
    /// When it was written, by the database's clock; never before the entry before it.
    pub time: Timestamp,
    /// The hash of the entry before it; zeros in the first.
    pub previous_hash: [u8; 32],
    /// SHA-256 of all of it.
    pub hash: [u8; 32],
}

impl AuditEntry {
    /// The entry that comes after `last`.
    #[must_use]
    pub fn after(last: &ChainPoint, entry: NewAuditEntry, time: Timestamp) -> AuditEntry {
        let sequence = last.sequence + 1;
        let hash = entry.hash(sequence, time, &last.hash);
        AuditEntry { entry, sequence, time, previous_hash: last.hash, hash }
    }

    /// Where the chain is with it.
    #[must_use]
    pub fn point(&self) -> ChainPoint {
        ChainPoint { sequence: self.sequence, hash: self.hash }
    }
}

/// How far a chain has come: with the hash of its last entry it vouches for all before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainPoint {
    /// Of the last entry; 0 before the first.
    pub sequence: i64,
    /// Of the last entry; zeros before the first.
    pub hash: [u8; 32],
}

impl ChainPoint {
    /// Before the first entry.
    pub const START: ChainPoint = ChainPoint { sequence: 0, hash: [0; 32] };

    /// Where the chain is with `entry`, if that is what comes next.
    ///
    /// # Errors
    ///
    /// [`Misfit`]: somebody changed the entry, or one before it.
    pub fn follow(self, entry: &AuditEntry) -> Result<ChainPoint, Misfit> {
        if entry.sequence != self.sequence + 1 {
            return Err(Misfit::Missing);
        }
        if entry.previous_hash != self.hash {
            return Err(Misfit::Unlinked);
        }
        if entry.entry.hash(entry.sequence, entry.time, &entry.previous_hash) != entry.hash {
            return Err(Misfit::Altered);
        }
        Ok(entry.point())
    }
}

/// `SEQUENCE:HASH`, the hash as 64 hexadecimal digits.
impl fmt::Display for ChainPoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:", self.sequence)?;
        self.hash.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl FromStr for ChainPoint {
    type Err = String;

    fn from_str(text: &str) -> Result<ChainPoint, String> {
        let read = || {
            let (sequence, digits) = text.split_once(':')?;
            let plain = digits.len() == 64 && digits.bytes().all(|one| one.is_ascii_hexdigit());
            let mut hash = [0; 32];
            for (at, byte) in hash.iter_mut().enumerate().filter(|_| plain) {
                *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
            }
            let sequence = sequence.parse::<i64>().ok().filter(|sequence| 0 <= *sequence)?;
            plain.then_some(ChainPoint { sequence, hash })
        };
        read().ok_or_else(|| "a number, a colon and 64 hexadecimal digits".to_owned())
    }
}

/// Why an entry is not the one that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// Its number is not the next.
    #[error("entries before it are missing, or it was put in")]
    Missing,
    /// It continues another chain.
    #[error("it does not continue the entry before it")]
    Unlinked,
    /// Its hash is of another entry.
    #[error("it was altered")]
    Altered,
    /// The chain ends elsewhere than its head says.
    #[error("the chain does not end where its head says")]
    End,
    /// The chain's head is gone, and with it what says where the chain ends.
    #[error("the chain has no head")]
    NoHead,
    /// Somebody noted another hash under this number, or a later number.
    #[error("it is not the entry that was noted")]
    Noted,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(object: &str) -> NewAuditEntry {
        let chain = Chain::Organization(OrganizationId::stored("clinic"));
        NewAuditEntry {
            object_ids: vec![object.to_owned()],
            ..NewAuditEntry::of_service(chain, "PauseSubscription")
        }
    }

    fn chain() -> Vec<AuditEntry> {
        let mut last = ChainPoint::START;
        let link = |number: i64| {
            let linked = AuditEntry::after(&last, entry("sub_1"), Timestamp(number));
            last = linked.point();
            linked
        };
        (1..=4).map(link).collect()
    }

    fn walk(chain: &[AuditEntry]) -> Result<ChainPoint, (i64, Misfit)> {
        chain.iter().try_fold(ChainPoint::START, |last, entry| {
            last.follow(entry).map_err(|misfit| (entry.sequence, misfit))
        })
    }

    #[test]
    fn a_chain_as_it_was_written_fits() {
        let chain = chain();
        assert_eq!(walk(&chain), Ok(chain[3].point()));
        assert_eq!(walk(&[]), Ok(ChainPoint::START));
    }

    #[test]
    fn every_part_of_an_entry_is_under_its_hash() {
        let edits: [fn(&mut AuditEntry); 16] = [
            |one| one.time = Timestamp(9),
            |one| one.entry.chain = Chain::Deployment,
            |one| one.entry.principal = "somebody".to_owned(),
            |one| one.entry.credential_id = "whk_1".to_owned(),
            |one| one.entry.peer = "10.0.0.1:5".to_owned(),
            |one| one.entry.method = "DeleteSubscription".to_owned(),
            |one| one.entry.object_ids = vec![],
            |one| one.entry.object_ids = vec!["sub_".to_owned(), "1".to_owned()],
            |one| one.entry.changed_fields = vec!["url".to_owned()],
            |one| one.entry.code = "NOT_FOUND".to_owned(),
            |one| one.entry.reason = "NOT_FOUND".to_owned(),
            |one| one.entry.request_id = "0123".to_owned(),
            |one| one.entry.payload_read = true,
            |one| one.entry.calls = 2,
            |one| one.hash[31] ^= 1,
            |one| std::mem::swap(&mut one.entry.code, &mut one.entry.reason),
        ];
        for (number, edit) in edits.into_iter().enumerate() {
            let mut chain = chain();
            edit(&mut chain[2]);
            assert_eq!(walk(&chain), Err((3, Misfit::Altered)), "edit {number}");
        }
    }

    #[test]
    fn what_is_taken_out_put_in_or_made_anew_does_not_fit() {
        let mut taken = chain();
        taken.remove(1);
        assert_eq!(walk(&taken), Err((3, Misfit::Missing)));
        let mut swapped = chain();
        swapped.swap(1, 2);
        assert_eq!(walk(&swapped), Err((3, Misfit::Missing)));
        let mut forged = chain();
        forged[1] = AuditEntry::after(&forged[0].point(), entry("sub_2"), Timestamp(2));
        assert_eq!(walk(&forged), Err((3, Misfit::Unlinked)));
        // Nor does it help to link the next one to it, whose hash was made of the old one.
        forged[2].previous_hash = forged[1].hash;
        assert_eq!(walk(&forged), Err((3, Misfit::Altered)));
    }

    #[test]
    fn points_and_chains_are_read_as_they_are_written() {
        let point = chain()[0].point();
        assert_eq!(point.to_string().parse(), Ok(point));
        let digits = "0".repeat(64);
        for wrong in
            ["", "1", ":", &digits, "1:00", &format!("-1:{digits}"), &format!("1:{digits}0")]
        {
            assert!(wrong.parse::<ChainPoint>().is_err(), "{wrong}");
        }
        assert_eq!(format!("0:{digits}").parse(), Ok(ChainPoint::START));
        assert_eq!("*".parse(), Ok(Chain::Deployment));
        for chain in [Chain::Deployment, entry("").chain] {
            assert_eq!(chain.to_string().parse(), Ok(chain.clone()));
            assert_eq!(Chain::stored(chain.key()), chain);
        }
        assert!("a b".parse::<Chain>().is_err());
    }

    #[test]
    fn only_what_has_the_form_of_an_id_is_kept() {
        for id in ["sub_0123456789abc", "booking-1001", "catalog/name.v1", "a:b"] {
            assert!(is_object_id(id), "{id}");
        }
        for other in ["", "Robin Example", "a\0", "é", &"a".repeat(129)] {
            assert!(!is_object_id(other), "{other}");
        }
    }
}
