//! Receivers and what they are to get.

use sea_orm::entity::prelude::*;

#[expect(clippy::struct_excessive_bools, reason = "columns, each by itself")]
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "subscription")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub key: i64,
    pub organization_id: String,
    pub account_id: String,
    pub name: String,
    pub url: String,
    pub event_patterns: String,
    pub profile: String,
    pub signing_enabled: bool,
    pub headers: String,
    pub headers_key_id: i32,
    pub headers_version: i16,
    pub attributes: String,
    pub send_organization_code: bool,
    pub retry_waits: String,
    pub attempt_timeout_ms: i32,
    pub max_in_flight: i32,
    pub state: i16,
    pub state_reason: String,
    pub routing_version: i64,
    pub create_time: i64,
    pub update_time: i64,
    pub deleted: bool,
    pub payload_mode: i16,
    pub masked_pointers: String,
    pub omit_trace_context: bool,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
