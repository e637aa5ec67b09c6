//! Who must receive what.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "event")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub key: i64,
    pub organization_id: String,
    pub account_id: String,
    pub event_id: String,
    pub event_type: String,
    pub occur_time: i64,
    pub publish_time: i64,
    pub expire_time: i64,
    pub content_type: String,
    pub payload_kind: i16,
    pub payload_bytes: i32,
    pub payload: Option<Vec<u8>>,
    pub payload_key_id: i32,
    pub payload_version: i16,
    pub attributes: String,
    pub subject: String,
    pub traceparent: String,
    pub tracestate: String,
    pub targets: Vec<u8>,
    pub purge_time: i64,
    pub publisher: String,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
