//! Who may act for whom: the one door between a request and the store.

use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::domain::id::OrganizationId;

/// Decides which organizations a caller may act for. Without credentials, as now,
/// everything is allowed; the server then listens on loopback only, unless its
/// operator insists.
#[derive(Clone, Debug, Default)]
pub struct Access;

impl Access {
    /// The organization that a request names, if its caller may act for it. Store
    /// calls take an [`OrganizationId`], and handlers get theirs here and nowhere else.
    ///
    /// # Errors
    ///
    /// `INVALID_ARGUMENT` when it is no organization's name.
    #[expect(clippy::unused_self, reason = "where credentials will be looked up")]
    pub(super) fn organization(
        &self,
        _metadata: &MetadataMap,
        organization_id: &str,
    ) -> Result<OrganizationId, Status> {
        Ok(OrganizationId::parse(organization_id)?)
    }
}
