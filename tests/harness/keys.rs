//! Key-encryption keys of the servers under test.

/// Where a server is told its keys.
pub(crate) const VARIABLE: &str = "HOOKWARD_ENCRYPTION_KEYS";
/// One key alone.
pub(crate) const OLD: &str = "old=b2xkIGtleSBvbGQga2V5IG9sZCBrZXkgb2xkIGtleTA=";
/// Another one alone.
pub(crate) const NEW: &str = "new=bmV3IGtleSBuZXcga2V5IG5ldyBrZXkgbmV3IGtleTA=";

/// Both, with this one for what is new.
pub(crate) fn both(primary: &str) -> String {
    format!("{OLD};{NEW};primary={primary}")
}
