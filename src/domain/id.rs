//! Keys inside, ids outside.
//!
//! A key is a 64-bit number made in the process, ascending with time: 41 bits of
//! milliseconds since [`EPOCH_MILLIS`], 10 bits of the replica's number, 12 bits
//! of sequence. Ascending keys keep inserts at the right edge of every index.
//!
//! An id is what callers see: a prefix and the key under a keyed permutation
//! (Speck64/128), in Crockford base32, so that ids tell neither volumes nor times.
//! A delivery is the pair (event, subscription), and so is its id.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};

use super::timestamp::Timestamp;

/// Where the milliseconds of a key start: 2024-01-01T00:00:00Z.
pub const EPOCH_MILLIS: i64 = 1_704_067_200_000;
/// Replica numbers are 0 to this, 10 bits.
pub const REPLICA_MAX: u16 = 1023;

const REPLICA_SHIFT: u32 = 12;
const MILLIS_SHIFT: u32 = 22;

macro_rules! key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub i64);
    };
}

key!(
    /// Key of an event; carries the time of its intake.
    EventKey
);
key!(
    /// Key of a subscription.
    SubscriptionKey
);
key!(
    /// Key of a signing secret.
    SecretKey
);
key!(
    /// Key of an API key: random, since whoever makes one has no replica's number.
    ApiKeyId
);

impl EventKey {
    /// The smallest key an event taken in at `time` can have.
    #[must_use]
    pub fn first_at(time: Timestamp) -> EventKey {
        let millis = (time.millis() - EPOCH_MILLIS).clamp(0, (1 << 41) - 1);
        EventKey(millis << MILLIS_SHIFT)
    }

    /// The replica number that made this key.
    #[must_use]
    pub fn replica(self) -> u16 {
        u16::try_from((self.0 >> REPLICA_SHIFT) & i64::from(REPLICA_MAX)).unwrap_or(REPLICA_MAX)
    }

    /// When this key was made, to the millisecond, by the database's clock.
    #[must_use]
    pub fn time(self) -> Timestamp {
        Timestamp(((self.0 >> MILLIS_SHIFT) + EPOCH_MILLIS) * 1000)
    }
}

/// Which delivery: this event on its way to this subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryKey {
    /// What is delivered.
    pub event: EventKey,
    /// To whom.
    pub subscription: SubscriptionKey,
}

/// Makes ascending keys for one replica. Shared by all its tasks.
#[derive(Debug)]
pub struct KeyMaker {
    /// Milliseconds since the epoch and sequence, without the replica's number.
    last: AtomicI64,
}

impl KeyMaker {
    /// A maker whose keys come after every key made before `floor`.
    #[must_use]
    pub fn new(floor: Timestamp) -> Self {
        let millis = (floor.millis() - EPOCH_MILLIS).max(0);
        KeyMaker { last: AtomicI64::new(millis << REPLICA_SHIFT) }
    }

    /// Keys to come are later than `key`, whatever the clock says.
    pub fn pass(&self, key: i64) {
        let sequence = key & ((1 << REPLICA_SHIFT) - 1);
        let made = ((key >> MILLIS_SHIFT) << REPLICA_SHIFT) | sequence;
        self.last.fetch_max(made, Ordering::Relaxed);
    }

    /// The next key, later than all before it even when the clock steps back.
    pub fn next(&self, replica: u16, now: Timestamp) -> i64 {
        let earliest = (now.millis() - EPOCH_MILLIS).max(0) << REPLICA_SHIFT;
        let step = |last: i64| Some(earliest.max(last + 1));
        let (Ok(last) | Err(last)) =
            self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        let made = earliest.max(last + 1);
        let (millis, sequence) = (made >> REPLICA_SHIFT, made & ((1 << REPLICA_SHIFT) - 1));
        (millis << MILLIS_SHIFT) | (i64::from(replica) << REPLICA_SHIFT) | sequence
    }
}

/// Name of the organization an object belongs to: the isolation key. 1 to 64 of
/// `[A-Za-z0-9_.-]`, chosen by the caller.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrganizationId(std::sync::Arc<str>);

/// Name of an account inside an organization; the same alphabet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(std::sync::Arc<str>);

macro_rules! name {
    ($name:ident, $field:literal) => {
        impl $name {
            /// The name, if it is one.
            ///
            /// # Errors
            ///
            /// When it is empty, too long or has another character.
            pub fn parse(text: &str) -> Result<Self, super::invalid::InvalidField> {
                let fits = (1..=64).contains(&text.len())
                    && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
                if fits {
                    return Ok(Self(text.into()));
                }
                Err(super::invalid::InvalidField::new(
                    $field,
                    "INVALID_ID",
                    "1 to 64 characters of A-Z, a-z, 0-9, '_', '.' and '-'",
                ))
            }

            /// One that this service stored, so that it is known to be valid.
            #[must_use]
            pub fn stored(text: &str) -> Self {
                Self(text.into())
            }

            /// As text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

name!(OrganizationId, "organization_id");
name!(AccountId, "account_id");

/// Turns keys into ids and back. All replicas of one database share its seed.
#[derive(Clone, Debug)]
pub struct IdCodec {
    rounds: [u32; ROUNDS],
}

/// Speck64/128 has 27 rounds.
const ROUNDS: usize = 27;
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// 13 digits of 5 bits hold 64 bits.
const DIGITS: usize = 13;

impl IdCodec {
    /// A codec from the database's 16 random bytes.
    #[must_use]
    pub fn new(seed: [u8; 16]) -> Self {
        let word =
            |at: usize| u32::from_le_bytes([seed[at], seed[at + 1], seed[at + 2], seed[at + 3]]);
        let mut key = word(0);
        let mut rest = [word(4), word(8), word(12)];
        let mut rounds = [0; ROUNDS];
        for (number, round) in (0_u32..).zip(&mut rounds) {
            *round = key;
            let [first, ..] = rest;
            let mixed = key.wrapping_add(first.rotate_right(8)) ^ number;
            rest = [rest[1], rest[2], mixed];
            key = key.rotate_left(3) ^ mixed;
        }
        IdCodec { rounds }
    }

    /// `sub_…`
    #[must_use]
    pub fn subscription(&self, key: SubscriptionKey) -> String {
        self.write("sub_", &[self.hide(key.0)])
    }

    /// The key of a `sub_…`; `None` when it is not one.
    #[must_use]
    pub fn parse_subscription(&self, id: &str) -> Option<SubscriptionKey> {
        read::<1>("sub_", id).map(|[block]| SubscriptionKey(self.reveal(block)))
    }

    /// `evt_…`, for an event whose publisher chose no id.
    #[must_use]
    pub fn event(&self, key: EventKey) -> String {
        self.write("evt_", &[self.hide(key.0)])
    }

    /// The key of an `evt_…`; `None` when it is not one.
    #[must_use]
    pub fn parse_event(&self, id: &str) -> Option<EventKey> {
        read::<1>("evt_", id).map(|[block]| EventKey(self.reveal(block)))
    }

    /// `sec_…`
    #[must_use]
    pub fn secret(&self, key: SecretKey) -> String {
        self.write("sec_", &[self.hide(key.0)])
    }

    /// The key of a `sec_…`; `None` when it is not one.
    #[must_use]
    pub fn parse_secret(&self, id: &str) -> Option<SecretKey> {
        read::<1>("sec_", id).map(|[block]| SecretKey(self.reveal(block)))
    }

    /// An object's version, for its etag: versions count the changes of all organizations.
    #[must_use]
    pub fn version(&self, version: i64) -> String {
        self.write("", &[self.hide(version)])
    }

    /// The version in such digits; `None` when they are none.
    #[must_use]
    pub fn parse_version(&self, digits: &str) -> Option<i64> {
        read::<1>("", digits).map(|[block]| self.reveal(block))
    }

    /// `whk_…`, without the secret.
    #[must_use]
    pub fn api_key(&self, id: ApiKeyId) -> String {
        self.write("whk_", &[self.hide(id.0)])
    }

    /// The key of a `whk_…` without its secret; `None` when it is not one.
    #[must_use]
    pub fn parse_api_key(&self, id: &str) -> Option<ApiKeyId> {
        read::<1>("whk_", id).map(|[block]| ApiKeyId(self.reveal(block)))
    }

    /// `dlv_…`; the same on every attempt of the delivery.
    #[must_use]
    pub fn delivery(&self, key: DeliveryKey) -> String {
        self.write("dlv_", &self.hide_pair(key))
    }

    /// The pair of a `dlv_…`; `None` when it is not one.
    #[must_use]
    pub fn parse_delivery(&self, id: &str) -> Option<DeliveryKey> {
        let [first, second] = read::<2>("dlv_", id)?;
        let event = EventKey(self.reveal(first));
        let subscription =
            SubscriptionKey(self.reveal(second) ^ i64::from_le_bytes(first.to_le_bytes()));
        Some(DeliveryKey { event, subscription })
    }

    /// `att_…`: the delivery's digits, a hyphen and the attempt's number.
    #[must_use]
    pub fn attempt(&self, key: DeliveryKey, number: u32) -> String {
        format!("{}-{number}", self.write("att_", &self.hide_pair(key)))
    }

    /// Chained, so that the second half differs from event to event.
    fn hide_pair(&self, key: DeliveryKey) -> [u64; 2] {
        let first = self.hide(key.event.0);
        let second = self.hide(key.subscription.0 ^ i64::from_le_bytes(first.to_le_bytes()));
        [first, second]
    }

    #[expect(clippy::unused_self, reason = "reads as one family with the methods around it")]
    fn write(&self, prefix: &str, blocks: &[u64]) -> String {
        let mut id = String::with_capacity(prefix.len() + DIGITS * blocks.len());
        id.push_str(prefix);
        for block in blocks {
            for place in (0..DIGITS).rev() {
                let digit = usize::try_from((block >> (5 * place)) & 31).expect("5 bits");
                id.push(char::from(ALPHABET[digit]));
            }
        }
        id
    }

    fn hide(&self, key: i64) -> u64 {
        let [mut high, mut low] = halves(u64::from_le_bytes(key.to_le_bytes()));
        for round in &self.rounds {
            high = high.rotate_right(8).wrapping_add(low) ^ round;
            low = low.rotate_left(3) ^ high;
        }
        (u64::from(high) << 32) | u64::from(low)
    }

    fn reveal(&self, block: u64) -> i64 {
        let [mut high, mut low] = halves(block);
        for round in self.rounds.iter().rev() {
            low = (low ^ high).rotate_right(3);
            high = (high ^ round).wrapping_sub(low).rotate_left(8);
        }
        i64::from_le_bytes(((u64::from(high) << 32) | u64::from(low)).to_le_bytes())
    }
}

fn halves(block: u64) -> [u32; 2] {
    let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).expect("32 bits");
    [half(block >> 32), half(block)]
}

fn read<const BLOCKS: usize>(prefix: &str, id: &str) -> Option<[u64; BLOCKS]> {
    let digits = id.strip_prefix(prefix)?.as_bytes();
    if digits.len() != DIGITS * BLOCKS {
        return None;
    }
    let mut blocks = [0_u64; BLOCKS];
    for (block, digits) in blocks.iter_mut().zip(digits.chunks_exact(DIGITS)) {
        for digit in digits {
            let value = ALPHABET.iter().position(|letter| letter == digit)?;
            // The first digit holds only 4 of its 5 bits.
            *block = block.checked_mul(32)?.checked_add(u64::try_from(value).ok()?)?;
        }
    }
    Some(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codec() -> IdCodec {
        IdCodec::new(*b"\x00\x01\x02\x03\x08\x09\x0a\x0b\x10\x11\x12\x13\x18\x19\x1a\x1b")
    }

    /// The published test vector of Speck64/128 (Beaulieu et al., "The SIMON and
    /// SPECK families of lightweight block ciphers", appendix C).
    #[test]
    fn agrees_with_the_published_vector() {
        let plain = i64::from_be_bytes(*b"\x3b\x72\x65\x74\x74\x75\x43\x2d");
        assert_eq!(codec().hide(plain), 0x8c6f_a548_454e_028b);
        assert_eq!(codec().reveal(0x8c6f_a548_454e_028b), plain);
    }

    #[test]
    fn ids_read_back_as_the_key_they_were_made_from() {
        for key in [0, 1, -1, i64::MAX, i64::MIN, 771_234_567_890_123] {
            let delivery =
                DeliveryKey { event: EventKey(key), subscription: SubscriptionKey(!key) };
            let id = codec().delivery(delivery);
            assert_eq!(id.len(), 4 + 26);
            assert_eq!(codec().parse_delivery(&id), Some(delivery));
            let id = codec().subscription(SubscriptionKey(key));
            assert_eq!(codec().parse_subscription(&id), Some(SubscriptionKey(key)));
        }
    }

    #[test]
    fn what_is_no_id_is_refused() {
        let event = codec().event(EventKey(7));
        assert_eq!(codec().parse_subscription(&event), None, "another prefix");
        assert_eq!(codec().parse_event(&event.to_uppercase()), None);
        assert_eq!(codec().parse_event("evt_zzzzzzzzzzzzz"), None, "more than 64 bits");
        assert_eq!(codec().parse_event("evt_é"), None);
        assert_eq!(codec().parse_event(""), None);
    }

    #[test]
    fn keys_ascend_even_when_the_clock_steps_back() {
        let maker = KeyMaker::new(Timestamp(0));
        let noon = Timestamp(1_800_000_000_000_000);
        let first = maker.next(3, noon);
        let second = maker.next(3, Timestamp(noon.0 - 60_000_000));
        assert!(first < second);
        assert_eq!(EventKey(first).time(), noon);
        assert_eq!(EventKey(second).replica(), 3);
        assert!(EventKey::first_at(noon).0 <= first);
    }

    #[test]
    fn keys_ascend_past_those_of_another_maker() {
        let [earlier, later] = [0, 0].map(|floor| KeyMaker::new(Timestamp(floor)));
        let noon = Timestamp(1_800_000_000_000_000);
        let made: Vec<i64> = (0..5000).map(|_| earlier.next(3, noon)).collect();
        later.pass(made[4999]);
        later.pass(made[0]);
        assert_eq!(later.next(3, Timestamp(noon.0 - 60_000_000)), made[4999] + 1);
    }
}
