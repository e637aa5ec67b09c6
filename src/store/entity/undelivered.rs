//! Deliveries that ended without success.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "undelivered")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub subscription_key: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    pub event_key: i64,
    pub organization_id: String,
    pub state: i16,
    pub reason: i16,
    pub end_time: i64,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
