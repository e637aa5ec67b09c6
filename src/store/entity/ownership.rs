//! What is known of endpoints that must consent.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "ownership")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub subscription_key: i64,
    pub asked: Vec<u8>,
    pub state: i16,
    pub failures: i32,
    pub reason: String,
    pub check_time: i64,
    pub due_time: i64,
    pub start_time: i64,
    pub owner: i64,
    pub claim: i32,
    pub lapse_time: i64,
    pub routing_version: i64,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
