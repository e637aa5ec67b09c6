//! What happened.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "attempt")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub subscription_key: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    pub event_key: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    pub number: i16,
    pub result: i16,
    pub http_status: i16,
    pub start_time: i64,
    pub duration_us: i64,
    pub error: String,
    pub response_body: Vec<u8>,
    pub response_key_id: i32,
    pub response_version: i16,
    pub trace_id: Vec<u8>,
    pub ours: bool,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
