//! The lock of a job and sink in a database: who holds it may end the sessions and transactions of earlier processes.
//!
//! It is the server's, and held by the committer's connection: gone with that, and taken again by the next one before anything is
//! done over it. So a process that is dead holds nothing as soon as the server has noticed, which it looks for each second also where
//! the session works or waits, and of two that live the second waits,
//! and then gives up with words. Whoever lost its connection may find that another has had the lock meanwhile, and has rolled
//! back what it did not know: that the committer finds out when it commits.

use ::postgres::{Client, Error};
use tidemill_storage::key::hash_bits;

use super::session::Failure;

/// Tries to take a lock for this session.
const TAKE: &str = "SELECT pg_try_advisory_lock($1)";

/// Who has it. The server shows some of it only to roles that may see it.
const HOLDER: &str = "\
    SELECT format('session %s (application %s, from %s, since %s)', pid, application_name, \
        COALESCE(host(client_addr), 'an unknown or this machine'), COALESCE(backend_start::text, 'unknown')) \
    FROM pg_locks JOIN pg_stat_activity USING (pid) \
    WHERE locktype = 'advisory' AND objsubid = 1 AND granted \
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
        AND (classid::bigint << 32) | objid::bigint = $1";

/// The number of the lock of all sessions that have this prefix.
pub(super) fn key(prefix: &str) -> i64 {
    let hash = prefix.bytes().fold(0x9e37_79b9_7f4a_7c15, |hash, byte| hash_bits(hash ^ u64::from(byte)));
    hash.cast_signed()
}

/// Takes the lock for a session, if nobody else has it.
pub(super) fn take(client: &mut Client, key: i64) -> Result<(), Failure> {
    if client.query_one(TAKE, &[&key])?.try_get(0)? {
        Ok(())
    } else {
        Err(Failure::Taken(holder(client, key)?))
    }
}

fn holder(client: &mut Client, key: i64) -> Result<String, Error> {
    match client.query_opt(HOLDER, &[&key])? {
        Some(row) => row.try_get(0),
        None => Ok("a session that has ended since".to_owned()),
    }
}
