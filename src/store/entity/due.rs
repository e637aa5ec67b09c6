//! What its first attempt did not settle.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "due")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub subscription_key: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    pub event_key: i64,
    pub due_at: i64,
    pub owner: i64,
    pub claim: i32,
    pub attempts: i16,
    pub takeovers: i16,
    pub last_chance: bool,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
