//! Certificates towards receivers.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "subscription_tls")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub subscription_key: i64,
    pub certificate: String,
    pub secret: Vec<u8>,
    pub secret_key_id: i32,
    pub secret_version: i16,
    pub authorities: String,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
