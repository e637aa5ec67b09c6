//! Row-level security: behind the organization in every statement a second wall, which
//! PostgreSQL keeps. SQLite has none.
//!
//! What is one organization's own business runs in a transaction that begins by becoming a
//! role which owns nothing, and by naming the organization, both in the message of BEGIN.
//! The role's policies show it the rows of that organization, and none where none is named.
//! The engine's statements serve many organizations at once: they are made by the tables'
//! owner, whom no policy concerns, and cost what they would without
//! (docs/decisions/0027-row-level-security.md).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, Statement, TransactionTrait};
use sha2::{Digest, Sha256};

use super::StoreError;
use super::engine::column;
use super::error::is_lock_timeout;
use super::migrate::{self, MIGRATION_LOCK};
use crate::domain::canary;
use crate::domain::id::OrganizationId;

/// Whether the database itself keeps organizations apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowSecurity {
    /// It does.
    On,
    /// It could, and does not: what an operator has to do.
    Off(String),
    /// SQLite knows no roles.
    Unavailable,
}

impl From<&Result<ApiRole, String>> for RowSecurity {
    fn from(looked: &Result<ApiRole, String>) -> RowSecurity {
        match looked {
            Ok(_) => RowSecurity::On,
            Err(missing) => RowSecurity::Off(missing.clone()),
        }
    }
}

/// The role that has policies. No two databases of different owners share one: whoever may
/// become it in one of them could elsewhere, too.
#[derive(Clone, Debug)]
pub(super) struct ApiRole {
    /// With quotation marks, if it needs them.
    quoted: String,
}

impl ApiRole {
    /// What begins a transaction, so that it sees this organization and no other. A text
    /// that is no organization's name sees nothing, but for the canary's.
    pub(super) fn bind(&self, begin: &str, organization: &OrganizationId) -> String {
        let text = organization.as_str();
        let is_name = canary::owns(organization) || OrganizationId::parse(text).is_ok();
        let name = if is_name { text } else { "" };
        let role = &self.quoted;
        format!("{begin}; SET LOCAL ROLE {role}; SET LOCAL hookward.organization = '{name}'")
    }
}

/// A table that callers' work reads or writes.
struct Table {
    name: &'static str,
    /// What the role may do there.
    privileges: &'static str,
    /// Which rows are the organization's; `None`: the table holds nobody's data.
    own: Option<&'static str>,
}

/// Rows of the deployment's own have no name, and are not for whoever has none.
const OF_ORGANIZATION: &str =
    "organization_id = nullif(current_setting('hookward.organization', true), '')";
const OF_SUBSCRIPTION: &str = "EXISTS (
    SELECT 1 FROM subscription s
    WHERE s.key = subscription_key
      AND s.organization_id = current_setting('hookward.organization', true))";

/// The row without a name holds what counts for everybody.
const OF_ORGANIZATION_OR_EVERYBODY: &str =
    "organization_id IN (current_setting('hookward.organization', true), '')";

/// The role reaches no others: not keys of callers, nor the seeds behind ids and tokens. On
/// events UPDATE is for their row locks and for purges; on attempts, for purges.
const TABLES: [Table; 17] = [
    Table::of("subscription", "SELECT, INSERT, UPDATE", OF_ORGANIZATION),
    Table::of("subscription_tls", "SELECT, INSERT, DELETE", OF_SUBSCRIPTION),
    Table::of("ownership", "SELECT, UPDATE, DELETE", OF_SUBSCRIPTION),
    Table::of("signing_secret", "SELECT, INSERT, UPDATE, DELETE", OF_SUBSCRIPTION),
    Table::of("data_key", "SELECT, INSERT", OF_ORGANIZATION),
    Table::of("request_log", "SELECT, INSERT, DELETE", OF_ORGANIZATION),
    Table::of("event_key", "SELECT", OF_ORGANIZATION),
    Table::of(
        "event",
        "SELECT, UPDATE (payload, attributes, subject, purge_time)",
        OF_ORGANIZATION,
    ),
    Table::of("attempt", "SELECT, UPDATE (response_body)", OF_SUBSCRIPTION),
    Table::of("due", "SELECT, INSERT, DELETE", OF_SUBSCRIPTION),
    Table::of("undelivered", "SELECT, INSERT, DELETE", OF_ORGANIZATION),
    Table::of("retention", "SELECT", OF_ORGANIZATION_OR_EVERYBODY),
    Table::of("retention_visit", "SELECT, INSERT, UPDATE", OF_ORGANIZATION),
    Table::of("audit_entry", "SELECT, INSERT", OF_ORGANIZATION),
    Table::of("audit_head", "SELECT, INSERT, UPDATE", OF_ORGANIZATION),
    Table { name: "routing_clock", privileges: "SELECT, UPDATE", own: None },
    Table { name: "replica", privileges: "SELECT (low_key)", own: None },
];

/// The role's name, by the owner of the tables.
const NAME: &str = "(SELECT left(pg_get_userbyid(relowner), 59) || '_api'
    FROM pg_class WHERE oid = 'event'::regclass)";

/// Makes the role, unless this one may not, or another database's migration makes it now.
const MAKE_ROLE: &str = "
    DO $do$
    DECLARE
        api constant text := {name};
    BEGIN
        IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = api) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', api);
        END IF;
    EXCEPTION
        WHEN insufficient_privilege OR duplicate_object OR unique_violation THEN NULL;
    END
    $do$";

/// Lets this role become it. From PostgreSQL 16 on that is a right of its own, apart from
/// having the other's rights, which come with its policies.
const LET_BECOME: &str = "
    DO $do$
    DECLARE
        api    constant text := {name};
        modern constant bool := current_setting('server_version_num')::int4 >= 160000;
    BEGIN
        IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = api) THEN
            RETURN;
        END IF;
        IF NOT pg_has_role(api::name, CASE WHEN modern THEN 'SET' ELSE 'MEMBER' END) THEN
            EXECUTE format('GRANT %I TO CURRENT_USER %s', api,
                CASE WHEN modern THEN 'WITH INHERIT FALSE, SET TRUE' ELSE '' END);
        END IF;
        IF NOT has_schema_privilege(api::name, current_schema(), 'USAGE') THEN
            EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), api);
        END IF;
    EXCEPTION
        WHEN insufficient_privilege THEN NULL;
    END
    $do$";

/// Policies and rights of one table, in one transaction: with row-level security and without
/// the first policy nobody but the owner would see anything. That policy is for every role,
/// as if there were none; the second one narrows it for the role of callers.
const PROTECT: &str = "
    DO $do$
    DECLARE
        api constant text := {name};
    BEGIN
        IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = api) THEN
            RETURN;
        END IF;
        IF {done} THEN
            RETURN;
        END IF;
        {policies}
        EXECUTE format('GRANT {privileges} ON {table} TO %I', api);
    EXCEPTION
        WHEN insufficient_privilege THEN NULL;
    END
    $do$";
const POLICIES: &str = "
        ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
        -- Of an earlier owner's role.
        DROP POLICY IF EXISTS hookward_service ON {table};
        DROP POLICY IF EXISTS hookward_organization ON {table};
        CREATE POLICY hookward_service ON {table} USING (true);
        EXECUTE format($policy$
            CREATE POLICY hookward_organization ON {table} AS RESTRICTIVE TO %I USING ({own})
            $policy$, api);
        COMMENT ON POLICY hookward_organization ON {table} IS '{mark}';";
const HAS_POLICY: &str = "EXISTS (
            SELECT 1 FROM pg_policy JOIN pg_roles ON polroles = ARRAY[pg_roles.oid]
            WHERE polrelid = '{table}'::regclass AND polname = 'hookward_organization'
              AND rolname = api AND obj_description(pg_policy.oid, 'pg_policy') = '{mark}')";

/// How things stand. A policy of the role that also binds this one would hide everybody's
/// rows from the engine.
const LOOK: &str = "
    SELECT quote_ident(api.name) AS quoted, quote_ident(current_user) AS own,
        role.oid IS NOT NULL AS there,
        coalesce(role.rolsuper OR role.rolbypassrls, false) AS sees_everything,
        coalesce(pg_has_role(role.oid, CASE
            WHEN current_setting('server_version_num')::int4 >= 160000 THEN 'SET' ELSE 'MEMBER'
        END), false) AS may_become,
        coalesce(row_security_active('event') AND pg_has_role(role.oid, 'USAGE'), false)
            AS binds_own,
        coalesce(current_setting('search_path') LIKE '%$user%'
            AND current_schema() = current_user, false) AS by_user,
        (SELECT count(*) FROM pg_policy policy JOIN pg_class protected
             ON protected.oid = policy.polrelid
         WHERE policy.polname = 'hookward_organization' AND policy.polroles = ARRAY[role.oid]
           AND protected.relrowsecurity
           AND protected.oid IN (SELECT to_regclass(name) FROM unnest(ARRAY[{tables}]) name))
            AS tables
    FROM (SELECT {name} AS name) api LEFT JOIN pg_roles role ON role.rolname = api.name";

impl Table {
    const fn of(name: &'static str, privileges: &'static str, own: &'static str) -> Table {
        Table { name, privileges, own: Some(own) }
    }

    /// Tells this policy and these rights from those of another release: the database keeps
    /// an expression in a form of its own. Rights only widen, since the release before may be
    /// running.
    fn mark(&self) -> String {
        let parts = [POLICIES, self.own.unwrap_or_default(), self.privileges];
        URL_SAFE_NO_PAD.encode(Sha256::digest(parts.join("\n")))
    }

    fn protect(&self) -> String {
        let (policies, done) = match self.own {
            Some(own) => (POLICIES.replace("{own}", own), HAS_POLICY),
            // Rights alone need no lock of the table.
            None => (String::new(), "false"),
        };
        let sql = PROTECT.replace("{policies}", &policies).replace("{done}", done);
        let sql = sql.replace("{mark}", &self.mark());
        let sql = sql.replace("{privileges}", self.privileges).replace("{table}", self.name);
        sql.replace("{name}", NAME)
    }
}

/// Makes the role and its policies where they are missing and this role may; else
/// [`look`] says what is to be done. Each table's lock is held for a moment, and none
/// together with another's. Nothing to do on SQLite.
pub(super) async fn set_up(connection: &DatabaseConnection) -> Result<(), StoreError> {
    if connection.get_database_backend() != DbBackend::Postgres {
        return Ok(());
    }
    for role in [MAKE_ROLE, LET_BECOME] {
        patiently(connection, &role.replace("{name}", NAME)).await?;
    }
    for table in &TABLES {
        patiently(connection, &table.protect()).await?;
    }
    Ok(())
}

async fn patiently(connection: &DatabaseConnection, sql: &str) -> Result<(), StoreError> {
    let attempt = async |wait| alone(connection, sql, wait).await;
    Ok(migrate::patiently(attempt, is_lock_timeout).await?)
}

async fn alone(connection: &DatabaseConnection, sql: &str, wait: &str) -> Result<(), DbErr> {
    let transaction = connection.begin().await?;
    let locks = format!(
        "SET LOCAL lock_timeout = '{wait}';
        SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"
    );
    transaction.execute_unprepared(&locks).await?;
    transaction.execute_unprepared(sql).await?;
    transaction.commit().await
}

/// The role of callers' work, or what an operator has to do so that there is one.
///
/// # Errors
///
/// [`StoreError::Setup`] when the engine itself would be bound.
pub(super) async fn look(
    connection: &DatabaseConnection,
) -> Result<Result<ApiRole, String>, StoreError> {
    let protected = TABLES.iter().filter(|table| table.own.is_some());
    let names: Vec<String> = protected.map(|table| format!("'{}'", table.name)).collect();
    let sql = LOOK.replace("{tables}", &names.join(", ")).replace("{name}", NAME);
    let statement = Statement::from_string(DbBackend::Postgres, sql);
    let row = connection.query_one_raw(statement).await?.ok_or(StoreError::Corrupt("roles"))?;
    let is = |name| column::<bool>(&row, name);
    let (role, own): (String, String) = (column(&row, "quoted")?, column(&row, "own")?);
    if is("binds_own")? {
        let why = format!(
            "{own} has the rights of {role}, whose policies would hide every row from it: revoke \
             {role} from {own}, and grant it WITH INHERIT FALSE, or before PostgreSQL 16 to a \
             NOINHERIT role"
        );
        return Err(StoreError::Setup(why));
    }
    let missing = if is("by_user")? {
        Some(format!("set the search_path of {own} without \"$user\", and restart"))
    } else if !is("there")? {
        Some(format!(
            "CREATE ROLE {role} NOLOGIN; GRANT {role} TO {own}; then migrate, and restart"
        ))
    } else if is("sees_everything")? {
        Some(format!("ALTER ROLE {role} NOSUPERUSER NOBYPASSRLS, and restart"))
    } else if !is("may_become")? {
        Some(format!("GRANT {role} TO {own}; then migrate, and restart"))
    } else if usize::try_from(column::<i64>(&row, "tables")?) == Ok(names.len()) {
        None
    } else {
        Some("run `hookward migrate` as the owner of the tables, and restart".to_owned())
    };
    Ok(match missing {
        Some(missing) => Err(missing),
        None => Ok(ApiRole { quoted: role }),
    })
}
